"""Seeded picture augmentation on batches: what an attacker does to few pictures, and what the recogniser is trained on."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

WHITE = 1.0


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """(n,) uniform draws in [low, high)."""
    return low + (high - low) * torch.rand(n, generator=generator)


def move(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    degrees: float = 10.0,
    scale: tuple[float, float] = (0.8, 1.05),
    shift: float = 0.08,
    mirror: bool = True,
) -> torch.Tensor:
    """Rotates, scales, shifts and mirrors each picture, filling with white.

    Args:
        images: float (N, C, H, W) in [-1, 1].
        generator: the source of all randomness.
        degrees: largest rotation either way.
        scale: smallest and largest size factor.
        shift: largest shift, as a share of the picture's side.
        mirror: whether half of the pictures are mirrored.

    Returns:
        float (N, C, H, W) in [-1, 1].
    """
    n = len(images)
    angle = uniform(n, -math.radians(degrees), math.radians(degrees), generator)
    size = uniform(n, *scale, generator)
    flip = 1.0 - 2.0 * (torch.rand(n, generator=generator) < 0.5).float() if mirror else torch.ones(n)
    dx, dy = uniform(n, -2 * shift, 2 * shift, generator), uniform(n, -2 * shift, 2 * shift, generator)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    matrix = torch.stack([torch.stack([cos * flip, -sin * flip, dx], 1), torch.stack([sin, cos, dy], 1)], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images - WHITE, grid, padding_mode="zeros", align_corners=False) + WHITE


def recolour(images: torch.Tensor, generator: torch.Generator, *, strength: float = 0.2) -> torch.Tensor:
    """Changes brightness, contrast and saturation of each picture by up to `strength`.

    Args:
        images: float (N, 3, H, W) in [-1, 1].
        generator: the source of all randomness.
        strength: largest relative change.

    Returns:
        float (N, 3, H, W) in [-1, 1].
    """
    n = len(images)
    light, contrast, colour = (uniform(n, 1 - strength, 1 + strength, generator).view(n, 1, 1, 1) for _ in range(3))
    grey = images.mean(1, keepdim=True)
    out = grey + (images - grey) * colour
    mean = out.mean((1, 2, 3), keepdim=True)
    out = (mean + (out - mean) * contrast + 1) * light - 1
    return out.clamp(-1, 1)


def coarsen(images: torch.Tensor, generator: torch.Generator, *, factors: tuple[float, ...] = (1, 1, 0.75, 0.5)) -> torch.Tensor:
    """Shrinks each picture by one of `factors`, drawn evenly, and blows it up again: small detail is gone, shapes and colours stay.

    Args:
        images: float (N, C, H, W) in [-1, 1].
        generator: the source of all randomness.
        factors: share of the side that is kept; 1 leaves the picture as it is.

    Returns:
        float (N, C, H, W) in [-1, 1].
    """
    choice = torch.randint(len(factors), (len(images),), generator=generator)
    out = images.clone()
    for i, factor in enumerate(factors):
        which = choice == i
        if factor < 1 and which.any():
            small = F.interpolate(images[which], scale_factor=factor, mode="bilinear", antialias=True, align_corners=False)
            out[which] = F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)
    return out


def degrade(images: torch.Tensor, generator: torch.Generator, *, noise: float = 0.1) -> torch.Tensor:
    """Blurs (half of the pictures), adds noise and hides a rectangle, so that a recogniser does not lean on clean edges.

    Args:
        images: float (N, C, H, W) in [-1, 1].
        generator: the source of all randomness.
        noise: largest standard deviation of the added Gaussian noise.

    Returns:
        float (N, C, H, W) in [-1, 1].
    """
    n, _, height, width = images.shape
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = (uniform(n, -1.0, 1.0, generator).clamp(min=0)).view(n, 1, 1, 1)
    out = images + share * (soft - images)
    out = out + torch.randn(out.shape, generator=generator) * uniform(n, 0, noise, generator).view(n, 1, 1, 1)
    top = torch.randint(0, height, (n,), generator=generator)
    left = torch.randint(0, width, (n,), generator=generator)
    side = torch.randint(0, height // 4, (n,), generator=generator)
    ys, xs = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    rows = (ys >= top.view(-1, 1, 1)) & (ys < (top + side).view(-1, 1, 1))
    columns = (xs >= left.view(-1, 1, 1)) & (xs < (left + side).view(-1, 1, 1))
    hidden = rows & columns
    return torch.where(hidden[:, None], torch.tensor(WHITE), out).clamp(-1, 1)
