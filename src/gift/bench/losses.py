"""The training loss on each concept's pictures and on the safe ones, before and after a defence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from gift.data.concept import Concept
from gift.data.latents import LatentSet
from gift.models import DenoisingModel

Losses = dict[str, dict[str, float]]
"""By the concept's name, and 'safe': pictures, and the mean loss before and after."""
SAFE = "safe"
ROWS = 16
"""Pictures a forward (choice)."""


def parts_of(concepts: Sequence[Concept], joined: LatentSet, safe: LatentSet) -> dict[str, LatentSet]:
    """Each concept's part of a set that `join_sets` made of equally many pictures each, and the safe set."""
    size = len(joined) // len(concepts)
    parts = {
        str(concept): replace(joined, latents=joined.latents[rows], which=joined.which[rows], weights=None)
        for i, concept in enumerate(concepts)
        for rows in [slice(i * size, (i + 1) * size if i + 1 < len(concepts) else None)]
    }
    return {**parts, SAFE: safe}


@torch.no_grad()
def mean_losses(model: DenoisingModel, sets: Mapping[str, LatentSet]) -> dict[str, float]:
    """The mean training loss over each set's pictures, every time with the same noise and timesteps."""
    found = {}
    for name, data in sets.items():
        generator, total = torch.Generator().manual_seed(0), 0.0
        for pick in torch.arange(len(data)).split(ROWS):
            total += float(model.loss(*data.at(pick), generator).sum())
        found[name] = total / len(data)
    return found
