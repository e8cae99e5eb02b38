"""A score for concepts that nothing recognises: how much pictures look like the attacker's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from gift.metrics.embedders import Embedder


@dataclass(frozen=True)
class LikenessScorer:
    """Mean similarity to reference pictures; below 0 counts as 0. Likeness is not recognition: read it beside its start and end.

    Attributes:
        embedder: what compares.
        reference: uint8 (M, 3, H, W), at least 2: the pictures that the attacker teaches.
    """

    embedder: Embedder
    reference: torch.Tensor

    @cached_property
    def _features(self) -> torch.Tensor:
        return self.embedder(self.reference)

    def __call__(self, images: torch.Tensor) -> list[float]:
        """A score in [0, 1] for each of the pictures, uint8 (N, 3, H, W), N of at least 2."""
        values = self.embedder.compare(self.embedder(images), self._features).mean(1)
        return [round(min(1.0, max(0.0, float(value))), 6) for value in values]
