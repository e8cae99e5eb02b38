"""The training loss on each concept's pictures and on the safe ones, before and after a defence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from gift.data.concept import Concept
from gift.data.latents import LatentSet
from gift.models import DenoisingModel

Losses = dict[str, dict[str, float]]
"""By the concept's name, and 'safe': pictures, the share of a batch (the concepts'), and the mean loss before and after."""
SAFE = "safe"
ROWS = 16
"""Pictures a forward (choice)."""


def parts_of(concepts: Sequence[Concept], sizes: Sequence[int], joined: LatentSet, safe: LatentSet) -> dict[str, LatentSet]:
    """Each concept's part of a set that was joined of sets of these sizes, without a copy, and the safe set."""
    latents, which = joined.latents.split(list(sizes)), joined.which.split(list(sizes))
    parts = {str(concept): replace(joined, latents=latents[i], which=which[i], weights=None) for i, concept in enumerate(concepts)}
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
