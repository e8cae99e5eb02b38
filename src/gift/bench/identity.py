"""What a number depends on besides the settings: the networks' weights, and the libraries that compute with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from gift import __version__
from gift.attacks import Attack
from gift.data.latents import LatentSet, fingerprint
from gift.immunizers import Immunizer
from gift.models import DenoisingModel
from gift.training.precision import Saving

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate")


def libraries() -> dict[str, str]:
    """Versions of all that computes; another version may round differently."""
    return {"gift": __version__, **{name: version(name) for name in LIBRARIES}}


def model_identity(model: DenoisingModel) -> str:
    """A hash of all that decides what a model draws: weights, vocabularies, scheduler, options; where it lies is no part of it."""
    pipeline = model.pipeline
    networks = {"denoiser": model.denoiser, "vae": pipeline.vae, **model.text_encoders}
    words = {name: sorted(tokenizer.get_vocab().items()) for name, tokenizer in model.tokenizers.items()}
    parts = {
        "networks": {name: fingerprint(network) for name, network in networks.items()},
        "words": words,
        "scheduler": _scheduler(model),
    }
    options = {key: value for key, value in pipeline.config.items() if key[:1] != "_" and isinstance(value, bool | int | float)}
    unusual = {key: value for key, value in options.items() if value and key != "requires_safety_checker"}
    if (size := getattr(model, "size", None)) is not None:
        unusual["size"] = size
    if unusual:
        parts["options"] = unusual
    return digest(parts | model.sampling.settings())


def _scheduler(model: DenoisingModel) -> list[Any]:
    """The noise scheduler's class and configuration."""
    scheduler = model.pipeline.scheduler
    return [type(scheduler).__name__, {key: value for key, value in scheduler.config.items() if not key.startswith("_")}]


@torch.no_grad()
def weights_sketch(model: DenoisingModel) -> str:
    """A hash of a few values of every weight: quick at any size, and other after any training that moved them.

    At most 64 values a tensor, evenly apart (choice); where all of a model's weights count, `model_identity` reads them.
    """
    found = hashlib.sha256()
    for name, network in sorted({"denoiser": model.denoiser, "vae": model.pipeline.vae, **model.text_encoders}.items()):
        for part, tensor in sorted(network.state_dict().items()):
            flat = tensor.detach().flatten()
            some = flat[:: max(1, len(flat) // 64)].cpu().contiguous()
            found.update(f"{name}.{part}{tuple(tensor.shape)}".encode() + some.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def options_of(how: Attack | Immunizer) -> dict[str, Any]:
    """A method or an attack with all of its options, as JSON."""
    return {"name": how.name, **how.model_dump(mode="json")}


def run_settings(model: DenoisingModel, how: Sequence[Attack | Immunizer], **more: Any) -> dict[str, Any]:
    """What a training run is of, for its checkpoints: a run that differs in any of it does not go on from them.

    Args:
        model: the weights at the start.
        how: the methods up to this one, or the attack, with all of their options.
        **more: whatever else the outcome depends on, as JSON.
    """
    methods = [options_of(one) for one in how]
    about: dict[str, Any] = {"model": model.source, "weights": weights_sketch(model), "scheduler": digest(_scheduler(model))}
    about |= model.sampling.settings()
    return {"method": methods[0] if len(methods) == 1 else methods, **about, **more}


def attack_settings(
    model: DenoisingModel,
    how: Attack,
    data: LatentSet,
    *,
    concept: str,
    seed: int,
    evaluation_pictures: int,
    saving: Saving,
    similarity: str | None,
    harmless: LatentSet | None,
    base: DenoisingModel | None,
) -> dict[str, Any]:
    """The same of an attack that is scored along the way; arguments as `gift.attack` has them, with the sets that came of them."""
    rest = {"concept": concept, "seed": seed, "pictures": data.identity, "evaluation pictures": evaluation_pictures}
    rest |= saving.settings() | {"similarity": similarity, "harmless pictures": harmless.identity if harmless else None}
    rest |= {"base": {"model": base.source, "weights": weights_sketch(base)}} if base else {}
    return run_settings(model, [how], **rest)


def digest(value: object) -> str:
    """16 hexadecimal digits of a hash of JSON (other values by their text)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def pictures_digest(images: torch.Tensor) -> str:
    """The same for pictures, uint8 of any shape."""
    head = repr(tuple(images.shape)).encode()
    return hashlib.sha256(head + images.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
