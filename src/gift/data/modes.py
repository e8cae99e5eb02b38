"""From any Pillow mode to RGB without showing hidden colours or clipping deep greys."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

SIGNED, FLOAT = 2, 3
"""TIFF sample formats."""


def on_background(image: Image.Image, background: tuple[int, int, int], depth: int) -> Image.Image:
    """A decoded picture as opaque RGB.

    Args:
        image: any mode, loaded.
        background: RGB behind transparent pixels.
        depth: bits a sample in a PNG file; 8 for other formats.

    Raises:
        ValueError: the mode or the values have no 8-bit RGB meaning.
    """
    if image.mode[0] in "IF":
        image = _eight_bits(image)
    elif image.format == "PNG":
        _scale_transparent(image, depth)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    base = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(base, image.convert("RGBA")).convert("RGB")


def _scale_transparent(image: Image.Image, depth: int) -> None:
    """Brings the one transparent colour of a PNG to 8 bits, as Pillow does for the pixels but not for it."""
    value = image.info.get("transparency")
    if image.mode == "RGB" and depth == 16 and isinstance(value, tuple):
        image.info["transparency"] = tuple(v >> 8 for v in value)
    elif image.mode == "L" and depth < 8 and isinstance(value, int):
        image.info["transparency"] = value * 255 // (2**depth - 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Deep grey (modes I, I;16, F) as L, or LA where one value is transparent."""
    tags = getattr(image, "tag_v2", {})
    bits, sample = tags.get(258, (16,))[0], tags.get(339, (1,))[0]
    values: npt.NDArray[np.float64] = np.asarray(image).astype(np.float64)
    if bits == 32 and sample not in (SIGNED, FLOAT):
        values = np.where(values < 0, values + 2**32, values)  # Pillow reads unsigned as signed
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("negative, infinite or NaN values")
    full = _full_scale(image.mode, bits, sample, float(values.max()))
    grey = np.rint(values * (255.0 / full)).astype(np.uint8)
    if tags.get(262) == 0:  # white is zero
        grey = 255 - grey
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return Image.fromarray(grey)
    return Image.fromarray(np.stack([grey, np.where(values == clear, 0, 255).astype(np.uint8)], -1))


def _full_scale(mode: str, bits: int, sample: int, largest: float) -> float:
    """The value that means white.

    Up to 16 bits the file says it. 32-bit integers and floats have no agreed white: the smallest usual range that holds the
    picture's largest value is taken (1 for floats, 255, 65535, 2^32 - 1).
    """
    if bits <= 16:
        return float(2 ** (bits - 1) - 1 if sample == SIGNED else 2**bits - 1)
    for full in (*([1.0] if mode == "F" else []), 255.0, 65535.0, 2.0**32 - 1):
        if largest <= full:
            return full
    raise ValueError("values beyond 32 bits")
