"""Latents as patches of 2 x 2, in the order of FLUX and Qwen-Image."""

from __future__ import annotations

import math

import torch


def packed(latents: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) to (N, h / 2 * w / 2, 4 C): row by row, and in a patch channel by channel."""
    n, c, h, w = latents.shape
    return latents.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)


def unpacked(patches: torch.Tensor) -> torch.Tensor:
    """The inverse, for square latents."""
    n, count, c = patches.shape
    side = math.isqrt(count)
    return patches.view(n, side, side, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, c // 4, 2 * side, 2 * side)
