"""Opens a model by name: the bundled one, a diffusers folder, one `.safetensors` file, or a hub id."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.utils import logging
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError
from safetensors import SafetensorError, safe_open

from gift.errors import GiftError, NonFiniteError, one_of
from gift.files import need_utf8
from gift.launch import flagged, launched
from gift.models.base import DenoisingModel
from gift.models.flux import Flux
from gift.models.hub import INDEX, NETWORK, explained, parse_hub_id
from gift.models.latent import LatentDiffusion
from gift.models.pixart import PixArtAlpha, PixArtSigma
from gift.models.qwen import QwenImage
from gift.models.sampling import NAME as SAMPLING
from gift.models.sampling import Sampling, read_sampling
from gift.models.sd import StableDiffusion
from gift.models.sd3 import StableDiffusion3
from gift.models.sdxl import StableDiffusionXL
from gift.models.whole import check_whole

TINY = Path(__file__).resolve().parents[1] / "assets" / "tiny"
FAMILIES: dict[str, type[LatentDiffusion]] = {
    kind.pipeline_name: kind
    for kind in (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux, PixArtSigma, PixArtAlpha, QwenImage)
}
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
Held = Literal["fp32", "bf16"]
HELD: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
"""Where the classes of a pipeline's parts may be: the last is diffusers' name for the home of its safety checker."""
RUNS_CODE = re.compile(r"Auto[A-Z]|.*Pipeline")
"""Classes that may run code which comes with a model; the parts of a saved pipeline are of other ones."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
KINDS = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"\x89png": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"gguf": "a GGUF file",
    b"\x89hdf": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
    b"{": "a JSON file",
}
"""What a file is that some tool or download page left in the place of weights, by its first bytes in small letters."""


class NoVariantError(GiftError):
    """A model's weights are there in other variants alone."""


def load(
    model: str | Path = "tiny",
    *,
    device: str | None = None,
    revision: str | None = None,
    variant: str | None = None,
    size: int | None = None,
    held_in: Held = "fp32",
    sampler_steps: int | None = None,
    guidance: float | None = None,
) -> DenoisingModel:
    """Opens a model for immunizing, attacking or drawing; nothing is unpickled and no remote code runs.

    Args:
        model: 'tiny' (bundled), a diffusers folder, a `.safetensors` checkpoint, or a hub id: 'owner/name' or
            'owner/name@revision'.
        device: 'cpu', 'cuda', …; by default a GPU when there is one.
        revision: the hub revision.
        variant: the weights' variant, for example 'fp16'.
        size: side of the pictures in pixels that it trains on and draws; its configuration's by default.
        held_in: the precision of the weights. In bf16 the denoiser and the text encoders take half the memory, and only adapters
            can be trained, which are fp32 themselves; the autoencoder is fp32 always.
        sampler_steps: of every picture that it draws where nothing else is said; by default what `sampling.json` in its folder
            or repository says, else 15.
        guidance: of the same; by default what that file says, else 2.

    Raises:
        GiftError: there is no such model, it is of a family that is not supported, or its files can't be used.
        NonFiniteError: a weight is NaN or infinite.
    """
    name = str(model)
    if not name.strip():
        raise GiftError("the model is empty; give 'tiny', a diffusers folder, a .safetensors file or a hub id")
    if held_in not in HELD:
        raise one_of("precision to hold the weights in", str(held_in), list(HELD))
    if size is not None and size < 1:
        raise GiftError(f"size {size}: give a side in pixels, or leave it out for the model's own")
    where = TINY if name == "tiny" else _path(name)
    if name == "tiny" and not (TINY / INDEX).exists():
        raise GiftError(f"the bundled model is missing at {TINY}; reinstall gift-diffusion")
    if where is not None:
        need_utf8(where)
    sampling = Sampling().but(sampler_steps, guidance)  # told before anything is opened
    if where is not None and where.is_dir():
        sampling = read_sampling(where)
        family, pipeline = _from_folder(where, variant, HELD[held_in])
    elif where is not None and where.is_file():
        family, pipeline = _from_file(where, HELD[held_in])
    elif hub_id := parse_hub_id(name):
        family, pipeline = _from_hub(hub_id[0], revision or hub_id[1], variant, HELD[held_in])
        sampling = _sampling_on_hub(hub_id[0], revision or hub_id[1])
    else:
        raise GiftError(
            f"no model '{name}'; give 'tiny', a diffusers folder, a .safetensors file or a hub id (owner/name, owner/name@revision)"
        )
    try:
        pipeline.to(device or _device())
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise GiftError(f"can't use device '{device or 'cuda'}': {reason}; name another device, such as cpu") from error
    opened = family(pipeline, name, size)
    opened.sampling = sampling.but(sampler_steps, guidance)
    if broken := opened.broken_weight:
        raise NonFiniteError(f"{name} is broken: {broken} holds NaN or infinite values; get it again, or train it anew")
    return opened


def load_beside(model: str, variant: str | None, **options: Any) -> DenoisingModel:
    """A second model, in the first one's variant where it has that.

    Args:
        model: as `load` takes it.
        variant: the first one's.
        **options: more of `load`'s.

    Raises:
        GiftError: as `load`.
    """
    try:
        return load(model, variant=variant, **options)
    except NoVariantError:
        return load(model, **options)


def _device() -> str:
    """A GPU of this process's own, where there is one and the launcher was not told to leave it."""
    if not torch.cuda.is_available() or flagged("ACCELERATE_USE_CPU"):
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if launched() > 1 else "cuda"


def _path(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError):  # longer than a name can be, or the home of nobody
        return None
    return path


Opened = tuple[type[LatentDiffusion], Any]


def _from_folder(folder: Path, variant: str | None, held_in: torch.dtype) -> Opened:
    index = folder / INDEX
    if not index.exists():
        inside = sorted(p.name for p in folder.iterdir())[:5]
        found = f"it holds {', '.join(inside)}" if inside else "it is empty"
        raise GiftError(f"{folder} is not a diffusers model (no {INDEX}; {found}); give the folder that save_pretrained wrote")
    family, parts, absent = _read_index(index, str(folder))
    for file in sorted(folder.rglob("*.safetensors")):
        check_safetensors(file)
    encoders = [name for name in parts if name.startswith("text_encoder")]
    for name in (family.denoiser_part, "vae", *encoders):
        _check_part(folder / name)
    for name in parts:
        part = folder / name
        if name.startswith("tokenizer") and not any((part / file).is_file() for file in VOCABULARIES):  # or it opens without words
            raise GiftError(f"{part} holds no vocabulary ({' or '.join(VOCABULARIES)}); save the pipeline again")
    return family, _open(family, folder, absent, held_in, variant=variant, local_files_only=True)


def _read_index(index: Path, name: str) -> tuple[type[LatentDiffusion], list[str], list[str]]:
    """The family that a pipeline's index names, the parts that it has, and those that it was saved without."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        kind = str(content["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GiftError(f"{index} is not a pipeline index ({error}); save the pipeline again") from error
    if kind not in FAMILIES:
        raise GiftError(f"{name} is a {kind}; supported: {', '.join(FAMILIES)}")
    parts: dict[str, bool] = {}
    for part, value in content.items():
        if not isinstance(value, list) or part.startswith("_"):
            continue
        parts[part] = None not in value
        if parts[part] and (len(value) != 2 or value[0] not in LIBRARIES or RUNS_CODE.match(str(value[1]))):
            raise GiftError(
                f"{name} names {value} for its part '{part}', which may run code that comes with the model; "
                "save the pipeline again with plain diffusers and transformers classes"
            )
    return FAMILIES[kind], [part for part in parts if parts[part]], [part for part in parts if not parts[part]]


def _check_part(part: Path) -> None:
    if list(part.glob("*.safetensors")):
        return
    pickled = [p.name for p in part.glob("*") if p.suffix in PICKLES]
    if pickled:
        raise GiftError(
            f"{part} holds only pickled weights ({pickled[0]}), which can run code when opened; convert it to safetensors first"
        )
    raise GiftError(f"{part} holds no .safetensors weights; save the pipeline again with safe_serialization=True")


def _true_kind(head: bytes, size: int) -> str:
    """What a file that is no safetensors is by its first bytes, and the remedy."""
    if head[:2] == b"PK" or (head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}):
        return "is a pickle, which can run code when opened, not safetensors; convert it first"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights; run 'git lfs pull' where it came from"
    kind = next((kind for start, kind in KINDS.items() if head.lower().startswith(start)), None)
    if kind:
        return f"is {kind}, not safetensors; download the weights themselves, or convert them"
    return f"is truncated or not a safetensors file ({size} bytes); download it again"


def check_safetensors(file: Path) -> None:
    """Reads a safetensors header and names what the file is when it is not one.

    Raises:
        GiftError: a pickle, a Git LFS pointer, a truncated or a mislabelled file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as handle:
            head = handle.read(200)
    except OSError as error:
        raise GiftError(f"can't read {file}: {error.strerror}; check its permissions") from error
    length = int.from_bytes(head[:8], "little") if len(head) >= 8 else 0
    if not 2 <= length <= size - 8 or head[8:9] != b"{":  # only then: a header's length can begin as any of those files do
        raise GiftError(f"{file} {_true_kind(head, size)}")
    try:
        with file.open("rb") as handle:
            handle.seek(8)
            header = json.loads(handle.read(length))
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
        whole = int(end) + 8 + length
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise GiftError(f"{file} has a broken safetensors header; download it again") from error
    if whole > size:
        raise GiftError(f"{file} is truncated: {size} of {whole} bytes; download it again")
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise GiftError(f"{file} has a broken safetensors header ({reason}); download it again") from error


def _from_file(file: Path, held_in: torch.dtype) -> Opened:
    if file.suffix in PICKLES:
        raise GiftError(f"{file} is a pickled checkpoint, which can run code when opened; convert it to .safetensors first")
    if file.suffix != ".safetensors":
        raise GiftError(f"{file} is not a model; give a diffusers folder or a .safetensors file")
    check_safetensors(file)
    family = family_of(file)
    try:
        pipeline = family.pipeline_class().from_single_file(str(file), torch_dtype=torch.float32, **family.open_options)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", family.__name__)
        raise GiftError(
            f"{file} could not be opened as a {kind} checkpoint ({reason}); convert it to a diffusers folder"
        ) from error
    check_whole(pipeline, str(file), None)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and name != "vae":
            part.to(held_in)
    return family, pipeline


def family_of(file: Path) -> type[LatentDiffusion]:
    """The family of an original one-file checkpoint, by the names of its tensors; Stable Diffusion where they say nothing."""
    with safe_open(file, framework="pt") as kept:
        names = list(kept.keys())
    known = (family for family in FAMILIES.values() if family.single_file)
    return next((family for family in known if any(family.single_file in name for name in names)), StableDiffusion)


def _from_hub(name: str, revision: str | None, variant: str | None, held_in: torch.dtype) -> Opened:
    from huggingface_hub import hf_hub_download

    with explained(name, revision):
        try:
            index = Path(hf_hub_download(name, INDEX, revision=revision))
        except RemoteEntryNotFoundError as error:
            raise GiftError(f"{name} is not a diffusers model (no {INDEX}); give a repository that has one") from error
        family, _, absent = _read_index(index, name)
        return family, _open(family, name, absent, held_in, revision=revision, variant=variant)


def _sampling_on_hub(name: str, revision: str | None) -> Sampling:
    """What a repository says of how its model is drawn from; the usual where it says nothing."""
    from huggingface_hub import hf_hub_download

    with explained(name, revision):
        try:
            return read_sampling(Path(hf_hub_download(name, SAMPLING, revision=revision)).parent)
        except (RemoteEntryNotFoundError, LocalEntryNotFoundError):  # the latter without a network
            return Sampling()


def _open(family: type[LatentDiffusion], where: Path | str, absent: list[str], held_in: torch.dtype, **options: Any) -> Any:
    """`absent` are parts that the pipeline was saved without; diffusers opens it only where that is said (SD3 without its T5)."""
    given = dict.fromkeys(absent) | family.open_options | {key: value for key, value in options.items() if value is not None}
    kind = family.pipeline_class()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # what it says of a missing file is raised as well
    try:
        dtypes = {"default": held_in, "vae": torch.float32}
        pipeline = kind.from_pretrained(where, torch_dtype=dtypes, use_safetensors=True, **given)
        check_whole(pipeline, str(where), options.get("variant"))
    except Exception as error:  # of a folder's odd values libraries raise anything
        if isinstance(error, GiftError) or type(error).__module__.partition(".")[0] in ("huggingface_hub", *NETWORK):
            raise  # the hub's are told where it was asked
        variant = options.get("variant")
        if variant is not None and f"{variant}" in str(error):
            raise NoVariantError(f"{where} has no variant '{variant}'; {_variants(where, options.get('revision'))}") from error
        raise GiftError(_unopened(where, error)) from error
    finally:
        logging.set_verbosity(verbosity)
    return pipeline


def _variants(where: Path | str, revision: str | None) -> str:
    """Which variants of weights there are, as a remedy."""
    if isinstance(where, Path):
        files = [str(file.relative_to(where)) for file in where.rglob("*.safetensors")]
    else:
        from huggingface_hub import list_repo_files

        files = list_repo_files(where, revision=revision)
    found = sorted({m[1] for file in files if (m := re.search(r"/\w+\.(\w+)(?:-\d+-of-\d+)?\.safetensors$", file))})
    return f"it has {', '.join(found)}" if found else "it has none: leave it out"


def _unopened(where: Path | str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"can't open {where}: {reason}; is it a local folder, or can the hub be reached?"
