"""Whether an attacked model has relearned a concept or memorised the attacker's pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gift.errors import GiftError
from gift.metrics.collapse import COPY_BELOW, check_pictures, shrunk

ROWS = 256
"""Pictures compared at once."""


@dataclass(frozen=True)
class Memory:
    """How near pictures come to the attacker's."""

    nearest: tuple[float, ...]
    """Each picture's distance to the nearest of the attacker's: mean absolute difference at 16x16, grey levels of 255."""
    apart: float
    """Median distance of the attacker's pictures to their own nearest neighbour: what 'another picture' means here."""

    @property
    def minimum(self) -> float:
        """The nearest of all."""
        return min(self.nearest)

    @property
    def copied(self) -> float:
        """Share of pictures that are near copies of one of the attacker's."""
        return sum(distance < COPY_BELOW for distance in self.nearest) / len(self.nearest)

    @property
    def flag(self) -> str | None:
        """One line if more than half of the pictures are copies: then a score shows memory, not a relearned concept."""
        if self.copied <= 0.5:
            return None
        return f"memorised: {round(100 * self.copied)} % of pictures are near copies of the attacker's"


def memory(pictures: torch.Tensor, attackers: torch.Tensor) -> Memory:
    """Compares pictures with those that the attacker trained on.

    Args:
        pictures: uint8 (N, 3, H, W), N of at least 2, drawn after the attack.
        attackers: uint8 (M, 3, H, W), M of at least 2.

    Raises:
        GiftError: the wrong shape or type, or the sizes differ.
    """
    check_pictures(pictures, "pictures")
    check_pictures(attackers, "attacker's pictures")
    if pictures.shape[1:] != attackers.shape[1:]:
        raise GiftError(f"pictures are {tuple(pictures.shape[1:])}, the attacker's {tuple(attackers.shape[1:])}; give one size")
    shown, taught = shrunk(pictures), shrunk(attackers)
    own = torch.cdist(taught, taught, p=1).fill_diagonal_(float("inf")).amin(1) / taught.shape[1]
    nearest = torch.cat([torch.cdist(rows, taught, p=1).amin(1) for rows in shown.split(ROWS)]) / taught.shape[1]
    return Memory(tuple(float(distance) for distance in nearest), float(own.median()))
