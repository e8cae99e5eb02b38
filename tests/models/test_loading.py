"""What is not a model is named for what it is, in one line, and nothing is unpickled (field failures 17, 25, 32, 36)."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import errors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from gift.errors import GiftError
from gift.models import load
from gift.models.loading import FAMILIES, check_safetensors, load_beside
from gift.models.sd import StableDiffusion
from tests.conftest import random_pipeline, same_state, state_of
from tests.models.families import ROWS, Row, sdxl_pipeline

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
GOOD = save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.float16)})
LENGTH = int.from_bytes(GOOD[:8], "little")
few = settings(max_examples=100, deadline=None)


def headed(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def told(call: Callable[[], object], words: str) -> None:
    with pytest.raises(GiftError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


BAD_BYTES = {
    **{f"pickle {n}": (pickle.dumps({"a": 1}, protocol=n), "is a pickle") for n in (2, 3, 4, 5)},
    "zip pickle": (b"PK\x03\x04" + bytes(40), "is a pickle"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
    "empty": (b"", "truncated"),
    "half a length": (GOOD[:5], "truncated"),
    "length alone": (GOOD[:8], "truncated"),
    "truncated header": (GOOD[: LENGTH // 2], "truncated"),
    "no body": (GOOD[: 8 + LENGTH], "truncated"),
    "truncated tail": (GOOD[:-1], "truncated"),
    "surplus": (GOOD + b"x", "broken"),
    "huge length": ((2**63).to_bytes(8, "little") + b"{}", "truncated"),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page, not safetensors; download the weights"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "is a picture"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(50), "is a picture"),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(50), "is a GGUF file"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(50), "is an HDF5 file"),
    "archive": (b"\x1f\x8b\x08\x00" + bytes(50), "is a gzip archive"),
    "index": (b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "is a JSON file"),
    "words": (b"hello, these are no weights at all", "truncated or not"),
    "broken JSON": (headed(b'{"a":'), "broken"),
    "not UTF-8": (headed(b'{"\xff":1}'), "broken"),
    "no offsets": (headed(b'{"a":{}}'), "broken"),
    "one offset": (headed(b'{"a":{"data_offsets":[0]}}'), "broken"),
    "a word for an offset": (headed(b'{"a":{"data_offsets":["x","y"]}}'), "broken"),
    "offsets of two kinds": (headed(b'{"a":{"data_offsets":[0,1]},"b":{"data_offsets":[0,"y"]}}'), "broken"),
    "infinite offset": (headed(b'{"a":{"data_offsets":[0,1e999]}}'), "broken"),
    "null": (headed(b'{"a":null}'), "broken"),
    "deep": (headed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "broken"),
    "unknown type": (headed(b'{"a":{"dtype":"Q9","shape":[0],"data_offsets":[0,0]}}'), "broken"),
    "shape too large": (headed(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}', bytes(4)), "broken"),
}


@pytest.mark.parametrize("kind", BAD_BYTES)
def test_bytes_that_are_no_safetensors_are_named(tmp_path: Path, kind: str) -> None:
    data, words = BAD_BYTES[kind]
    file = tmp_path / "m.safetensors"
    file.write_bytes(data)
    told(lambda: check_safetensors(file), words)
    told(lambda: load(file), words)


def test_what_can_not_be_read_is_told(tmp_path: Path) -> None:
    told(lambda: check_safetensors(tmp_path), "can't read")
    told(lambda: check_safetensors(tmp_path / "none.safetensors"), "can't read")


def test_whole_files_pass(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    for data in (GOOD, save({}), save({"a": torch.zeros(0)}, {"note": "x"})):
        file.write_bytes(data)
        check_safetensors(file)


@pytest.mark.parametrize("start", [b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK", b"{\x00", b"\x1f\x8b"])
def test_a_header_whose_length_begins_as_another_file_does_passes(tmp_path: Path, start: bytes) -> None:
    length = int.from_bytes(start, "little")
    header = json.dumps({"__metadata__": {"note": "x"}})
    file = tmp_path / "m.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + header.encode().ljust(length))
    check_safetensors(file)


@few
@given(data=st.binary(max_size=120) | st.binary(max_size=60).map(lambda b: headed(b"{" + b)))
def test_no_bytes_break_the_check(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("b") / "m.safetensors"
    file.write_bytes(data)
    try:
        check_safetensors(file)
    except GiftError:
        return
    load_file(file)  # what passes can be opened


values = st.recursive(
    st.none() | st.integers(-9, 99) | st.floats() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
)


@few
@given(
    name=st.sampled_from(["a", "b", "__metadata__"]),
    key=st.sampled_from(["dtype", "shape", "data_offsets"]),
    value=values,
    whole=st.booleans(),
)
def test_no_mutated_header_breaks_the_check(
    tmp_path_factory: pytest.TempPathFactory, name: str, key: str, value: object, whole: bool
) -> None:
    header = json.loads(GOOD[8 : 8 + LENGTH])
    header[name] = value if whole else {**header.get(name, {}), key: value}
    file = tmp_path_factory.mktemp("h") / "m.safetensors"
    file.write_bytes(headed(json.dumps(header).encode(), GOOD[8 + LENGTH :]))
    try:
        check_safetensors(file)
    except GiftError:
        return
    load_file(file)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return StableDiffusion(random_pipeline(), "x").save(tmp_path_factory.mktemp("saved") / "m")


def rewrite(file: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(data)


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def no_vocabulary(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)


def cut_text_encoder(folder: Path) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def swap_shape(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({**weights, "conv_in.bias": torch.zeros(3)}, folder / WEIGHTS)


def lose(file: str, name: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / file)
        del weights[name]
        save_file(weights, folder / file, metadata={"format": "pt"})

    return spoil


def say(file: str, **values: object) -> Callable[[Path], object]:
    """Other values in a configuration."""

    def spoil(folder: Path) -> None:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(config | values))

    return spoil


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (empty, r"no model_index\.json; it is empty"),
    "no index": (lambda f: (f / "model_index.json").unlink(), r"no model_index\.json; it holds "),
    "index cut": (rewrite("model_index.json", b'{"_class'), "not a pipeline index"),
    "index not UTF-8": (rewrite("model_index.json", b"\xff\xfe\x00"), "not a pipeline index"),
    "index a list": (rewrite("model_index.json", b"[1]"), "not a pipeline index"),
    "index without class": (rewrite("model_index.json", b"{}"), "not a pipeline index"),
    "class a list": (rewrite("model_index.json", b'{"_class_name": ["x"]}'), "supported: StableDiffusionPipeline"),
    "another class": (rewrite("model_index.json", b'{"_class_name": "WurstchenPipeline"}'), "is a WurstchenPipeline; supported"),
    "pickled weights": (pickled, "holds only pickled weights"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), r"holds no \.safetensors weights"),
    "LFS pointer": (rewrite(WEIGHTS, BAD_BYTES["LFS pointer"][0]), "Git LFS pointer"),
    "mislabelled": (rewrite(WEIGHTS, BAD_BYTES["zip pickle"][0]), "is a pickle"),
    "truncated text encoder": (cut_text_encoder, "truncated"),
    "config cut": (rewrite("unet/config.json", b'{"act'), "can't open"),
    "no config": (lambda f: (f / "vae" / "config.json").unlink(), "can't open"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "holds no vocabulary"),
    "no vocabulary": (no_vocabulary, "holds no vocabulary"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "can't open"),
    "weights of another shape": (swap_shape, "can't open"),
    "a weight of the denoiser lost": (lose(WEIGHTS, "conv_in.bias"), r"the weights of unet lack conv_in\.bias; save it again"),
    "a number of heads that is none": (say("unet/config.json", attention_head_dim=0), "can't open"),
    "a type that is none": (say("unet/config.json", block_out_channels=5), "can't open"),
    "a tokenizer without a length": (
        say("tokenizer/tokenizer_config.json", model_max_length=None),
        "tokenizer has no model_max_length; write it into its tokenizer_config.json",
    ),
}


@pytest.mark.parametrize("kind", BAD_FOLDERS)
def test_folders_that_are_no_model_are_told(saved: Path, tmp_path: Path, kind: str) -> None:
    spoil, words = BAD_FOLDERS[kind]
    folder = tmp_path / "m"
    shutil.copytree(saved, folder)
    spoil(folder)
    told(lambda: load(folder).encode_prompts(["a fox"]), words)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
@pytest.mark.parametrize("how", ["lost", "renamed"])
def test_a_text_encoder_is_never_filled_up_at_random(row: Row, how: str, tmp_path: Path) -> None:
    folder = row.model().save(tmp_path / "m")
    for part in load(folder).text_encoders:
        (file,) = (folder / part).glob("*.safetensors")
        whole = load_file(file)
        name = next(key for key in sorted(whole) if "layer" in key or "block" in key)
        weights = {key: value for key, value in whole.items() if key != name}
        save_file(weights | ({f"other.{name}": whole[name]} if how == "renamed" else {}), file, metadata={"format": "pt"})
        told(lambda: load(folder), f"the weights of {part} lack .*{re.escape(name.removeprefix('model.'))}; save it again")
        save_file(whole, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "part",
    [
        ["evil", "Evil"],
        ["os", "system"],
        ["transformers", "AutoModel"],
        ["diffusers", "DiffusionPipeline"],
        ["evil"],
        ["a", "b", "c"],
    ],
    ids="/".join,
)
def test_code_that_comes_with_a_model_is_never_run(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: list[str]
) -> None:
    folder, mark = tmp_path / "m", tmp_path / "mark"
    shutil.copytree(saved, folder)
    code = f"open({str(mark)!r}, 'w').close()\nclass Evil:\n    from_pretrained = save_pretrained = None\n"
    for place in ("evil.py", "pipeline.py", "unet/evil.py"):
        (folder / place).write_text(code)
    monkeypatch.syspath_prepend(folder)  # as where a script runs in the model's folder
    config = json.loads((folder / "unet" / "config.json").read_text())
    (folder / "unet" / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Evil"}}))
    index = json.loads((folder / "model_index.json").read_text())
    for content, words in (
        ({**index, "unet": part}, "may run code that comes with the model; save the pipeline again"),
        ({**index, "scheduler": part, "more": part}, "may run code that comes with the model"),
        ({**index, "_class_name": part}, "supported: StableDiffusionPipeline"),
    ):
        (folder / "model_index.json").write_text(json.dumps(content))
        told(lambda: load(folder), words)
        answer(monkeypatch, folder / "model_index.json")
        told(lambda: load("owner/name"), words)
    assert not mark.exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("m.ckpt", b"\x80\x02x", "pickled checkpoint"),
        ("m.bin", b"", "pickled checkpoint"),
        ("m.txt", b"hello", "is not a model"),
        ("m.safetensors", GOOD, r"could not be opened as a Stable Diffusion checkpoint \("),
        ("m.safetensors", save({"conditioner.embedders.0.x": torch.ones(1)}), r"opened as a Stable Diffusion XL checkpoint \("),
    ],
)
def test_files_that_are_no_model_are_told(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    told(lambda: load(tmp_path / name), words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tinny", "no model 'tinny'"),
        ("./nowhere", "no model './nowhere'"),
        ("/no/such/folder", "no model"),
        ("a/b/c", "no model"),
        ("x" * 300, "no model"),
        ("~nobody-here/m", "no model"),
        ("no-such-owner/no-such-model", "no-such-owner/no-such-model"),
    ],
)
def test_names_that_are_no_model_are_told(name: str, words: str) -> None:
    told(lambda: load(name), words)


@pytest.mark.parametrize(
    ("name", "pipeline"), [("cond_stage_model.a", random_pipeline), ("conditioner.embedders.1.a", sdxl_pipeline)]
)
def test_a_checkpoint_is_opened_by_the_pipeline_that_its_names_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pipeline: Callable[[], Any]
) -> None:
    made, file = pipeline(), tmp_path / "m.safetensors"
    file.write_bytes(save({name: torch.ones(1), "model.diffusion_model.x": torch.ones(1)}))
    monkeypatch.setattr(type(made), "from_single_file", lambda path, **_: made if path == str(file) else None)
    opened = load(file, device="cpu")
    assert opened.pipeline is made
    assert type(opened) is FAMILIES[type(made).__name__]
    made.vae.to("meta")
    told(lambda: load(file, device="cpu"), f"{re.escape(str(file))}: the weights of vae lack .* more.; save it again")


def answer(monkeypatch: pytest.MonkeyPatch, what: Path | Exception) -> None:
    """Has the hub give the pipeline's index, or an error."""

    def download(name: str, file: str, revision: str | None = None) -> str:
        if isinstance(what, Exception):
            raise what
        if file == "sampling.json":
            raise errors.LocalEntryNotFoundError("nothing")
        assert file == "model_index.json"
        return str(what)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)


def test_a_hub_models_index_chooses_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sdxl_pipeline()
    made.save_pretrained(tmp_path)
    answer(monkeypatch, tmp_path / "model_index.json")
    asked: dict[str, Any] = {}
    monkeypatch.setattr(type(made), "from_pretrained", lambda name, **options: asked.update(options, name=name) or made)
    assert load("owner/name", device="cpu", revision="v1").pipeline is made
    assert (asked["name"], asked["revision"], asked["use_safetensors"]) == ("owner/name", "v1", True)
    (tmp_path / "model_index.json").write_text('{"_class_name": "WurstchenPipeline"}')
    told(
        lambda: load("owner/name"),
        "owner/name is a WurstchenPipeline; supported: StableDiffusionPipeline, StableDiffusionXLPipeline",
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.EntryNotFoundError("no"), r"owner/name is not a diffusers model \(a file is missing: no\)"),
        (errors.LocalEntryNotFoundError("offline\nnow"), "can't get owner/name: offline now; is it a local folder"),
        (errors.HFValidationError("odd name"), "'owner/name' is no name for a repository; use owner/name"),
        (errors.OfflineModeIsEnabled("off"), "HF_HUB_OFFLINE=1 is set"),
        (ConnectionResetError("reset"), "can't get owner/name: reset; is it a local folder, or can the hub be reached"),
    ],
)
def test_what_the_hub_has_not_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    answer(monkeypatch, error)
    told(lambda: load("owner/name"), words)


def test_a_diffusers_without_the_pipeline_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StableDiffusion, "pipeline_name", "FuturePipeline")
    told(lambda: load(saved), "has no FuturePipeline; update it: pip install -U diffusers")


def test_a_pipeline_without_text_encoders_is_told(tmp_path: Path) -> None:
    pipeline = sdxl_pipeline()
    pipeline.register_modules(text_encoder=None, text_encoder_2=None)
    pipeline.save_pretrained(tmp_path)
    told(lambda: load(tmp_path, device="cpu"), "has no text encoder; save the whole pipeline again")


def test_an_unusable_device_is_told(saved: Path) -> None:
    told(lambda: load(saved, device="abacus"), "device 'abacus'")


def test_an_absent_variant_is_told(saved: Path) -> None:
    told(lambda: load(saved, variant="fp8"), "has no variant 'fp8'; it has none: leave it out")


def test_a_second_model_is_opened_in_the_first_one_s_variant_where_it_has_that(saved: Path, tmp_path: Path) -> None:
    assert load_beside(str(saved), "fp16").source == str(saved)
    load(saved).pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    told(lambda: load(tmp_path / "half"), "can't open")
    assert same_state(state_of(load_beside(str(tmp_path / "half"), "fp16")), state_of(load(saved)))
    told(lambda: load_beside("nowhere/at/all", "fp16"), "no model")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_saved_model_opens_in_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    model = StableDiffusion(random_pipeline("v_prediction", seed=3), "x")
    model.pipeline.to(dtype)
    before = state_of(model)
    opened = load(model.save(tmp_path / "übung m"), device="cpu")
    assert {p.dtype for part in (opened.denoiser, opened.pipeline.vae) for p in part.parameters()} == {torch.float32}
    assert same_state(state_of(opened), {name: tensor.float() for name, tensor in before.items()})
    assert opened.prediction_type == "v_prediction"
    assert "v_prediction, 16 px" in opened.describe()
