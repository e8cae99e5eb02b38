"""Varied copies of a training set: what lies beside a model's own pictures, for a defence that has no others."""

from __future__ import annotations

from dataclasses import replace

import torch

from gift.data.augment import move, recolour
from gift.data.latents import LatentSet
from gift.models import DenoisingModel
from gift.pixels import as_float
from gift.room import in_parts

AT_ONCE = 48
"""Pictures a pass through the autoencoder."""
COPIES = 3
"""Varied copies of each picture of a small set (choice)."""


def vary_set(model: DenoisingModel, data: LatentSet, seed: int) -> LatentSet:
    """The same set with each picture rotated, scaled, shifted, mirrored (half of them) and recoloured; prompts and shares stay.

    A picture goes through the autoencoder both ways, once.

    Args:
        model: whose autoencoder.
        data: N pictures.
        seed: of the variations.

    Raises:
        NonFiniteError: the autoencoder gives NaN or infinite values.
        NotEnoughMemory: there is no room for a single picture.
    """

    def vary(part: slice) -> torch.Tensor:
        images = as_float(model.decode(data.latents[part]).cpu())
        # A generator for each picture, so that no variation depends on how many are computed at once.
        own = [torch.Generator().manual_seed(seed * 1_000_003 + row) for row in range(len(data))[part]]
        varied = [recolour(move(image[None], draws), draws) for image, draws in zip(images, own, strict=True)]
        return model.encode_images(torch.cat(varied))

    latents = torch.cat(in_parts(len(data), AT_ONCE, vary, "to vary pictures"))
    return replace(data, latents=latents.to(data.latents).contiguous(), origin=f"{data.origin} varied {seed}")


def with_varied(model: DenoisingModel, data: LatentSet, share: float, seed: int, copies: int = COPIES) -> LatentSet:
    """A set with varied copies of its pictures among them; itself where their share is 0.

    Args:
        model: whose autoencoder.
        data: N pictures.
        share: how likely a varied copy is drawn, in [0, 1); each picture and its copies together are as likely as it was.
        seed: of the variations.
        copies: of each picture.

    Raises:
        NonFiniteError: the autoencoder gives NaN or infinite values.
        NotEnoughMemory: there is no room for a single picture.
    """
    if not share:
        return data
    sets = [data, *(vary_set(model, data, seed + number) for number in range(copies))]
    own = data.weights if data.weights is not None else torch.full((len(data),), 1 / len(data))
    return replace(
        data,
        latents=torch.cat([one.latents for one in sets]),
        which=data.which.repeat(len(sets)),
        weights=torch.cat([(1 - share) * own, *[share / copies * own] * copies]),
        concept_of=None if data.concept_of is None else data.concept_of.repeat(len(sets)),
        origin=" ".join(one.origin for one in sets),
    )
