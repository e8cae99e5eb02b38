"""Training sets as the denoiser sees them: latents and prompt embeddings, encoded once and cached by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from gift.data.images import content_key
from gift.data.prompts import Ask
from gift.errors import GiftError, NonFiniteError
from gift.files import write_bytes
from gift.models.base import Cond, DenoisingModel, take


@dataclass(frozen=True)
class LatentSet:
    """N pictures as latents, with their prompts' embeddings.

    Attributes:
        latents: scaled latents (N, C, h, w).
        cond: embeddings of the M distinct prompts.
        which: for each picture the row of its prompt, (N,).
        prompts: the M distinct prompts.
    """

    latents: torch.Tensor
    cond: Cond
    which: torch.Tensor
    prompts: list[str]

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, size: int, generator: torch.Generator) -> tuple[torch.Tensor, Cond]:
        """`size` pictures drawn with replacement: latents and conditioning."""
        pick = torch.randint(len(self), (size,), generator=generator)
        return self.at(pick)

    def at(self, pick: torch.Tensor) -> tuple[torch.Tensor, Cond]:
        """The pictures of the given indices: latents and conditioning."""
        pick = pick.to(self.latents.device)
        return self.latents[pick], take(self.cond, self.which[pick])


def _set(model: DenoisingModel, latents: torch.Tensor, prompts: Sequence[str]) -> LatentSet:
    if not torch.isfinite(latents).all():
        raise NonFiniteError("the latents hold NaN or infinite values; use the VAE in fp32 and look at the pictures")
    distinct = list(dict.fromkeys(prompts))
    row = {prompt: i for i, prompt in enumerate(distinct)}
    which = torch.tensor([row[prompt] for prompt in prompts], device=latents.device)
    return LatentSet(latents, model.encode_prompts(distinct), which, distinct)


def fingerprint(module: nn.Module) -> str:
    """A hash of a module's weights: the part of a cache key that says which network encoded."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def encode_set(model: DenoisingModel, images: torch.Tensor, captions: Sequence[str], cache: Path | None = None) -> LatentSet:
    """Encodes pictures and captions once.

    Args:
        model: the model whose autoencoder and text encoder are used.
        images: uint8 (N, 3, H, W) at the model's picture size.
        captions: N captions.
        cache: a folder; latents are kept there by the pictures' content and the autoencoder's weights.

    Raises:
        GiftError: there are no pictures, or their number is not that of the captions.
    """
    if len(images) == 0 or len(images) != len(captions):
        raise GiftError(f"{len(images)} pictures with {len(captions)} captions; give each picture one caption, and at least one picture")
    if cache is None:
        return _set(model, model.encode_images(images), captions)
    key = content_key(images, fingerprint(model.pipeline.vae), str(model.image_size))
    file = cache / f"{key}.safetensors"
    try:
        latents = load_file(file)["latents"].to(model.device)
    except (OSError, SafetensorError, KeyError):
        latents = model.encode_images(images)
        write_bytes(file, save({"latents": latents.cpu().contiguous()}))
    return _set(model, latents, captions)


def draw_set(model: DenoisingModel, asks: Sequence[Ask], *, steps: int = 15, guidance: float = 3.0, batch: int = 48) -> LatentSet:
    """The model's own pictures as a training set (data-free): sampled latents, kept as they are, without a trip through pixels.

    Args:
        model: the model that draws; unchanged.
        asks: prompts with their seeds.
        steps: sampler steps.
        guidance: classifier-free guidance scale.
        batch: pictures a forward.

    Raises:
        NonFiniteError: the model draws NaN.
    """
    rows = []
    for start in range(0, len(asks), batch):
        part = asks[start : start + batch]
        latents, _ = model.sample_latents([a.prompt for a in part], [a.seed for a in part], steps=steps, guidance=guidance)
        rows.append(latents)
    return _set(model, torch.cat(rows), [a.prompt for a in asks])
