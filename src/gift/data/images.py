"""The one picture loader: whatever a file holds becomes 8-bit RGB the same way everywhere, or an error that names the file."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.Image import Resampling, Transpose

from gift.data.modes import on_background
from gift.errors import GiftError, shown

MAX_PIXELS = 64_000_000
"""Most pixels a picture may have; more is refused before anything is decoded."""

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels: white."""

ACCEPTED = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of picture files, in any case. The content decides how a file is read, not the ending."""

logging.getLogger("PIL").addHandler(logging.NullHandler())  # its complaints about a file are in our errors

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""EXIF orientation to the move that undoes it."""


CONSTANT_BELOW = 4.0
"""A drawn picture is constant when no colour channel's deviation over its pixels reaches this many grey levels of 255 (choice:
none of the bundled drawings has less than 13)."""


class PictureError(GiftError):
    """A picture file that can't be used.

    Attributes:
        path: the file.
        reason: what is wrong with it, without its name.
    """

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{shown(path)}: {reason}; {remedy}")
        self.path, self.reason = path, reason


def read_picture(path: Path, size: int | None = None, background: tuple[int, int, int] = BACKGROUND) -> torch.Tensor:
    """Reads one picture; the file's first frame where it has several.

    EXIF orientation is applied. Transparency is composited on `background`, so that hidden colours never show. Grey of 16
    bits or more is scaled from its full range to 8 bits. PNG checksums are verified. Colour profiles are ignored.

    Args:
        path: a BMP, GIF, JPEG, PNG, TIFF or WebP file.
        size: side of the result in pixels: the centre square is cut out, then resized (Lanczos, antialiased). Without it the
            picture keeps its own height and width.
        background: RGB, 0 to 255, behind transparent pixels.

    Returns:
        uint8 (3, H, W), or (3, size, size).

    Raises:
        PictureError: the file is missing, unreadable, empty, no picture, damaged, or larger than `MAX_PIXELS`.
        GiftError: `size` is less than 1.
    """
    if size is not None and size < 1:
        raise GiftError(f"a picture can't be {size} pixels wide; give a size of 1 or more")
    try:
        if not path.is_file():  # a pipe or device would block for ever
            raise PictureError(path, "is not a regular file" if path.exists() else "no such file", "correct the path")
        with path.open("rb") as file, _strict():
            image = _decode(path, file, background)
    except PictureError:
        raise
    except Exception as error:  # damaged bytes make Pillow raise nearly anything, MemoryError and SyntaxError included
        if isinstance(error, OSError) and error.errno is not None:
            raise PictureError(path, f"can't be read ({error.strerror})", "check the disk and the permissions") from error
        detail = shown(" ".join(str(error).split()) or type(error).__name__)
        raise PictureError(path, f"is damaged or unsupported ({detail})", "save it again as PNG or remove it") from error
    if size is not None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((size, size), Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@contextmanager
def _strict() -> Iterator[None]:
    """No chatter from Pillow, and no half-decoded pictures even where another library has asked for them."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _decode(path: Path, file: BinaryIO, background: tuple[int, int, int]) -> Image.Image:
    """The upright RGB picture in an open file."""
    head = file.read(256)
    try:
        image = _open(path, file)
    except UnidentifiedImageError as error:
        raise PictureError(path, *_kind(head)) from error
    if image.format == "PNG":  # decoding alone skips its checksums; verifying spends the image
        image.verify()
        image = _open(path, file)
    with _hushed(image.format):
        image.load()
    try:
        turn = UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:  # broken EXIF is common in good photos: no known orientation, so none applied
        turn = None
    depth = head[24] if image.format == "PNG" else 8
    picture = on_background(image, background, depth)
    return picture if turn is None else picture.transpose(turn)


@contextmanager
def _hushed(kind: str | None) -> Iterator[None]:
    """libtiff writes its complaints straight to the process's standard error; they are in our errors."""
    if kind != "TIFF":
        yield
        return
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _open(path: Path, file: BinaryIO) -> Image.Image:
    """Reads the header alone and refuses what would not fit."""
    file.seek(0)
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(path, f"has more than {MAX_PIXELS // 10**6} million pixels", "make it smaller") from error
    if image.width * image.height > MAX_PIXELS:
        reason = f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS // 10**6} million"
        raise PictureError(path, reason, "make it smaller")
    return image


def _kind(head: bytes) -> tuple[str, str]:
    """What a file that is no known picture is by its first bytes, and the remedy."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "is empty (0 bytes)", "fetch it again or remove it"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the picture", "run 'git lfs pull'"
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not a picture", "download the picture itself"
    if text.startswith((b"<svg", b"<?xml")):
        return "is an SVG or XML file", "save it as PNG"
    if head[4:8] == b"ftyp":
        return "is a HEIC, AVIF or video file", "save it as PNG or JPEG"
    return "is not a picture that can be read", f"save it as PNG or remove it (accepted: {', '.join(ACCEPTED)})"


def constant_pictures(images: torch.Tensor) -> torch.Tensor:
    """Which pictures are one single colour, such as the black ones a safety filter leaves.

    Args:
        images: (N, C, H, W) of any type.

    Returns:
        bool (N,).
    """
    return (images.amax((2, 3)) == images.amin((2, 3))).all(1)


def contrast(images: torch.Tensor) -> torch.Tensor:
    """The standard deviation over each picture's pixels, of the colour channel in which it is largest.

    Args:
        images: (N, C, H, W) of any type.

    Returns:
        (N,), in the pictures' own unit.
    """
    return images.float().std(dim=(2, 3), correction=0).amax(1)


def content_key(images: torch.Tensor, *extra: str) -> str:
    """The name of pictures by what they hold, not by file name or date: an edited picture never meets a stale cache.

    Args:
        images: uint8 of any shape; the shape counts.
        *extra: whatever else decides the cached value, such as the preprocessing and the autoencoder's identity.

    Returns:
        SHA-256 as 64 hexadecimal digits.

    Raises:
        TypeError: `images` are not uint8.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"content_key takes uint8 pictures, not {images.dtype}")
    digest = hashlib.sha256(repr((tuple(images.shape), extra)).encode())  # repr: ("ab", "c") is not ("a", "bc")
    digest.update(images.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
