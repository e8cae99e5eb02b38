"""What a number depends on besides the settings: the networks' weights, and the libraries that compute with them."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version

import torch

from gift import __version__
from gift.data.latents import fingerprint
from gift.models import DenoisingModel

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate")


def libraries() -> dict[str, str]:
    """Versions of all that computes; another version may round differently."""
    return {"gift": __version__, **{name: version(name) for name in LIBRARIES}}


def model_identity(model: DenoisingModel) -> str:
    """A hash of all that decides what a model draws: weights, vocabularies, scheduler. Its place on the disk is no part of it."""
    pipeline = model.pipeline
    networks = {"denoiser": model.denoiser, "vae": pipeline.vae, **model.text_encoders}
    words = {name: sorted(tokenizer.get_vocab().items()) for name, tokenizer in model.tokenizers.items()}
    scheduler = {key: value for key, value in pipeline.scheduler.config.items() if not key.startswith("_")}
    parts = {
        "networks": {name: fingerprint(network) for name, network in networks.items()},
        "words": words,
        "scheduler": [type(pipeline.scheduler).__name__, scheduler],
    }
    return digest(parts)


def digest(value: object) -> str:
    """16 hexadecimal digits of a hash of JSON (other values by their text)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def pictures_digest(images: torch.Tensor) -> str:
    """The same for pictures, uint8 of any shape."""
    head = repr(tuple(images.shape)).encode()
    return hashlib.sha256(head + images.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
