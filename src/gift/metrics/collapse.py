"""Whether generated pictures have fallen apart: constant ones, copies of each other, or far too little variety.

A model that draws nothing any more also doesn't draw the concept. That is reported as 'collapsed', never as 'protected'.
NaN and infinite pictures never get here: the caller counts them before it turns floats into uint8.

Every threshold below is this project's choice, set against the bundled drawings (64x64): none of them has less
contrast than 13 grey levels, their closest pair of one style is 2.9 apart, and the mean pair of a style is 40 to 71 apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import adaptive_avg_pool2d

from gift.data.images import CONSTANT_BELOW, contrast
from gift.errors import GiftError

SIDE = 16
"""Pictures are averaged down to this side before they are compared, so that grain doesn't count as variety."""
COPY_BELOW = 2.0
"""Two pictures are near copies when their mean absolute difference at `SIDE` is below this many grey levels."""
CONSTANT_SHARE = 0.1
"""More constant pictures than this are a collapse."""
COPY_SHARE = 0.5
"""More near copies than this, beyond the reference's own share, are a collapse."""
DIVERSITY_SHARE = 1 / 3
"""Less than this share of the reference's diversity is a collapse."""


@dataclass(frozen=True)
class Collapse:
    """What was found in N pictures."""

    constant: float
    """Share of pictures without contrast, 0 to 1."""
    near_copies: float
    """Share of pictures that have a near copy among the others, 0 to 1."""
    diversity: float
    """Mean absolute difference over all pairs of pictures, grey levels of 255."""
    reference_near_copies: float | None = None
    """`near_copies` of the reference; None without one."""
    reference_diversity: float | None = None
    """`diversity` of the reference; None without one."""

    @property
    def relative_diversity(self) -> float | None:
        """Diversity over the reference's; None without a reference or when it has none itself."""
        return self.diversity / self.reference_diversity if self.reference_diversity else None

    @property
    def flag(self) -> str | None:
        """One line that begins with 'collapsed', or None when the pictures look whole. The first finding of the three is told."""
        if self.constant > CONSTANT_SHARE:
            return f"collapsed: {self.constant:.0%} of pictures are constant".replace("%", " %")
        if self.near_copies - (self.reference_near_copies or 0.0) > COPY_SHARE:
            return f"collapsed: {self.near_copies:.0%} of pictures are near copies of another".replace("%", " %")
        relative = self.relative_diversity
        if relative is not None and relative < DIVERSITY_SHARE:
            return f"collapsed: pictures differ {relative:.0%} as much as the reference's".replace("%", " %")
        return None


def collapsed(images: torch.Tensor, reference: torch.Tensor | None = None) -> Collapse:
    """Looks for constant pictures, near copies and lost variety.

    Memory is N² floats; for N up to 512 it takes well under a second. The share of near copies grows with N, so compare sets of
    like size. Pictures of pure noise aren't found here: FID and the recogniser's accuracy show those.

    Args:
        images: uint8 (N, 3, H, W) of different prompts or seeds.
        reference: uint8 (M, 3, H, W) from a sound model with the same prompts and seeds: how alike pictures of these
            prompts are anyway. Without it only constant pictures and near copies are judged.

    Raises:
        GiftError: fewer than two pictures, or not uint8 (N, 3, H, W).
    """
    check_pictures(images, "pictures")
    constant = (contrast(images) < CONSTANT_BELOW).float().mean().item()
    copies, diversity = _likeness(images)
    if reference is None:
        return Collapse(constant, copies, diversity)
    check_pictures(reference, "reference pictures")
    return Collapse(constant, copies, diversity, *_likeness(reference))


def blank(images: torch.Tensor, whose: str) -> list[str]:
    """A sentence on constant pictures, such as a safety filter leaves; none where there are none.

    Args:
        images: uint8 (N, 3, H, W).
        whose: the pictures, for the sentence: 'of mushroom'.
    """
    count = int((contrast(images) < CONSTANT_BELOW).sum())
    return [f"{count} of {len(images)} pictures {whose} are one single colour: they show nothing of it"] if count else []


def check_pictures(images: torch.Tensor, name: str) -> None:
    """Checks that pictures are uint8 (N, 3, H, W) with N of at least 2.

    Raises:
        GiftError: they are not.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise GiftError(f"the {name} are {images.dtype} {tuple(images.shape)}; give uint8 (N, 3, H, W)")
    if images.shape[0] < 2:
        raise GiftError(f"{images.shape[0]} of the {name} given; give at least 2")


def shrunk(images: torch.Tensor) -> torch.Tensor:
    """Pictures as they are compared: averaged down to `SIDE`, float (N, 3 * SIDE * SIDE)."""
    return adaptive_avg_pool2d(images.float(), SIDE).flatten(1)


def _likeness(images: torch.Tensor) -> tuple[float, float]:
    """Share of pictures with a near copy, and the mean distance over pairs."""
    small = shrunk(images)
    distances = torch.cdist(small, small, p=1) / small.shape[1]
    count = len(small)
    diversity = (distances.sum(dtype=torch.float64) / (count * (count - 1))).item()
    nearest = distances.fill_diagonal_(float("inf")).amin(1)
    return (nearest < COPY_BELOW).float().mean().item(), diversity
