"""A user's picture folder, checked whole before any model is loaded. Nothing in it is ever changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from gift.data.captions import METADATA, from_metadata, from_texts, some
from gift.data.images import ACCEPTED, PictureError, constant_pictures, read_picture
from gift.errors import GiftError, shown

UNREAD = {".avif", ".heic", ".heif", ".jp2", ".jxl", ".svg"}
"""Endings of picture formats that are not read; their owner is told."""


@dataclass(frozen=True)
class Picture:
    """A verified picture file and its caption."""

    path: Path
    caption: str


@dataclass(frozen=True)
class FolderScan:
    """What a folder holds.

    Attributes:
        pictures: readable pictures, sorted by path.
        skipped: how many 'hidden' entries, 'subfolders' and 'other files' were left out.
        bad: unreadable pictures with the reason; only with `skip_bad_images`.
        warnings: one line each, for the user.
        uncaptioned: how many of `pictures` had no caption of their own and got the default one.
    """

    pictures: list[Picture]
    skipped: dict[str, int]
    bad: list[tuple[Path, str]]
    warnings: list[str]
    uncaptioned: int

    def summary(self) -> str:
        """One line of counts to print."""
        parts = [f"{len(self.pictures)} pictures", f"{self.uncaptioned} with the default caption"]
        skipped = [f"{count} {kind}" for kind, count in self.skipped.items() if count]
        parts += [f"skipped {', '.join(skipped)}"] if skipped else []
        parts += [f"{len(self.bad)} unreadable left out"] if self.bad else []
        return "; ".join(parts)


def scan_folder(folder: Path, *, default_caption: str | None, skip_bad_images: bool = False) -> FolderScan:
    """Lists a folder's pictures with captions, and decodes every one to see that it is whole.

    Captions come from `metadata.jsonl` if there is one, else from a `.txt` file of the same stem. A picture whose caption is
    missing or empty gets `default_caption` and is counted. Hidden entries and subfolders are skipped, but `metadata.jsonl` may
    name pictures in them. It may not lead out of the folder, nor through a linked folder; linked files are read like others.

    Args:
        folder: the picture folder.
        default_caption: for pictures without a caption; None if that is an error.
        skip_bad_images: leave unreadable pictures out and list them in `bad` instead of stopping.

    Raises:
        GiftError: no pictures, unreadable ones, a caption file that can't be read, or no caption and no default one.
    """
    return _scan(folder, default_caption, skip_bad_images, read_picture)


def load_folder(
    folder: Path, *, size: int, default_caption: str | None, skip_bad_images: bool = False
) -> tuple[torch.Tensor, list[str], FolderScan]:
    """Reads a folder's pictures; what was verified is what is returned, each file decoded once.

    Args:
        folder: as in `scan_folder`.
        size: side in pixels of the centre squares.
        default_caption: as in `scan_folder`.
        skip_bad_images: as in `scan_folder`.

    Returns:
        uint8 (N, 3, size, size), N captions, and the scan; its warnings tell of pictures in one single colour.

    Raises:
        GiftError: as `scan_folder`, or `size` is less than 1.
    """
    decoded: dict[Path, torch.Tensor] = {}

    def keep(path: Path) -> None:
        decoded[path] = read_picture(path, size)

    scan = _scan(folder, default_caption, skip_bad_images, keep)
    images = torch.stack([decoded[picture.path] for picture in scan.pictures])
    flat = [scan.pictures[i].path.name for i in constant_pictures(images).nonzero().flatten().tolist()]
    if flat:
        scan.warnings.append(
            f"{len(flat)} of {len(images)} pictures are one single colour ({some(flat)}): blank or blacked out by a safety "
            "filter; remove them"
        )
    return images, [picture.caption for picture in scan.pictures], scan


def _scan(folder: Path, default_caption: str | None, skip_bad: bool, look: Callable[[Path], object]) -> FolderScan:
    """`scan_folder`, with `look` to decode each picture."""
    files, skipped = _list(folder)
    warnings: list[str] = []
    captions = folder / METADATA in files
    rows = from_metadata(folder, files, skipped, warnings) if captions else from_texts(files, skipped, warnings)
    unread = [path.name for path in files if path.suffix.lower() in UNREAD]
    if unread:
        warnings.append(f"{len(unread)} pictures in formats that are not read ({some(unread)}); save them as PNG or JPEG")
    if not rows:
        raise _no_images(folder, "none found", skipped)
    bad: dict[Path, str] = {}
    for path in dict.fromkeys(path for path, _ in rows):
        try:
            look(path)
        except PictureError as error:
            bad[path] = error.reason
    if bad and not skip_bad:
        listed = some([f"{path.name} {reason}" for path, reason in bad.items()])
        raise GiftError(f"{len(bad)} pictures in {shown(folder)} can't be used: {listed}; mend or remove them, or skip bad images")
    rows = [(path, caption) for path, caption in rows if path not in bad]
    if not rows:
        raise _no_images(folder, f"all {len(bad)} are unreadable: {some([path.name for path in bad])}", skipped)
    bare = [path.name for path, caption in rows if not caption]
    if bare and default_caption is None:
        remedy = f"add them to {METADATA}" if captions else "write a .txt file beside each"
        raise GiftError(
            f"{len(bare)} of {len(rows)} pictures in {shown(folder)} have no caption ({some(bare)}); "
            f"{remedy}, or give a default caption"
        )
    pictures = [Picture(path, caption or default_caption or "") for path, caption in rows]
    return FolderScan(pictures, skipped, list(bad.items()), warnings, len(bare))


def _list(folder: Path) -> tuple[list[Path], dict[str, int]]:
    """The folder's files, sorted, and counts of what is passed over."""
    skipped = {"hidden": 0, "subfolders": 0, "other files": 0}
    files: list[Path] = []
    try:
        if not folder.is_dir():
            raise _no_images(folder, "it is a file, not a folder" if folder.exists() else "no such folder", skipped)
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                skipped["hidden"] += 1
            elif path.is_dir():
                skipped["subfolders"] += 1
            else:
                files.append(path)
    except OSError as error:
        raise _no_images(folder, f"it can't be read ({error.strerror or error})", skipped) from error
    return files, skipped


def _no_images(folder: Path, why: str, skipped: dict[str, int]) -> GiftError:
    counts = [f"{count} {kind}" for kind, count in skipped.items() if count]
    passed = f" (skipped {', '.join(counts)})" if counts else ""
    return GiftError(f"0 images in {shown(folder)}: {why}{passed}; accepted: {', '.join(ACCEPTED)}")
