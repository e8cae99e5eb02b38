"""Files written whole or not at all, and folders that one run owns."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gift.errors import GiftError
from gift.parallel import is_main

LOCK = ".gift-lock"


def sync(path: Path) -> None:
    """Flushes a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes beside the target, flushes, renames: a reader sees the old file or the new one, never half.

    Of several processes that run together, the first one writes.

    Raises:
        GiftError: the folder can't be written or the disk is full; the old file is untouched.
    """
    if not is_main():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(part).chmod(0o644)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        sync(path.parent)
    except OSError as error:
        raise GiftError(f"can't write {path}: {error.strerror or error}; choose another folder or free some room") from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text, UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` for JSON with a stable layout. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `target` that replaces it only when the block ends well.

    Of several processes that run together, only the first one's does; what the others write is thrown away.

    Raises:
        GiftError: the place can't be written, or `target` is a file.
    """
    if target.exists() and not target.is_dir():
        raise GiftError(f"{target} is a file; give a folder")
    if not is_main():
        with tempfile.TemporaryDirectory() as thrown:
            yield Path(thrown)
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-part-"))
    except OSError as error:
        raise GiftError(f"can't write beside {target}: {error.strerror or error}; choose another folder") from error
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                file.chmod(0o644)  # some writers leave files that only their owner can read
            sync(file)
        part.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-old-"))
            target.replace(old / "old")
            try:
                part.replace(target)
            except OSError:
                (old / "old").replace(target)
                old.rmdir()
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            part.replace(target)
        sync(target.parent)
    except OSError as error:
        raise GiftError(f"can't write {target}: {error.strerror or error}; free some room or choose another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def owned(folder: Path) -> Iterator[Path]:
    """Holds an output folder for this run, so that a second one is told rather than mixed in; the first process holds it for all.

    Raises:
        GiftError: the folder is in use by a running command, is a file, or can't be written.
    """
    if folder.exists() and not folder.is_dir():
        raise GiftError(f"{folder} is a file; give a folder for --output")
    if not is_main():
        yield folder
        return
    fresh = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / LOCK).open("w")
    except OSError as error:
        raise GiftError(f"can't write to {folder}: {error.strerror or error}; choose another --output") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A run that ended between our open and our lock took the file's name away: what we hold would keep nobody out.
            if not (folder / LOCK).exists() or not os.path.samestat(os.fstat(handle.fileno()), (folder / LOCK).stat()):
                raise BlockingIOError
        except OSError as error:
            raise GiftError(f"{folder} is in use by another gift run; wait for it or choose another --output") from error
        try:
            yield folder
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            if fresh:  # a run that wrote nothing leaves no folder
                with suppress(OSError):
                    folder.rmdir()
