"""Pictures as bytes and as floats."""

from __future__ import annotations

import torch


def as_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 pictures to float in [-1, 1]; the exact inverse of `as_bytes`."""
    return images.float() / 127.5 - 1.0


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """Float pictures in [-1, 1] to uint8, rounded to nearest."""
    return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
