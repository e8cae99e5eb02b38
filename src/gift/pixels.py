"""Pictures as bytes, as floats, and as sheets."""

from __future__ import annotations

import io

import torch
from PIL import Image


def as_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 pictures to float in [-1, 1]; the exact inverse of `as_bytes`."""
    return images.float() / 127.5 - 1.0


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """Float pictures in [-1, 1] to uint8, rounded to nearest."""
    return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def contact_sheet(images: torch.Tensor, columns: int) -> Image.Image:
    """Pictures uint8 (N, 3, H, W), row by row, without gaps, on white."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    grid = torch.full((channels, rows * height, columns * width), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * height, i % columns * width
        grid[:, top : top + height, left : left + width] = image
    return Image.fromarray(grid.permute(1, 2, 0).numpy())


def png_bytes(image: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
