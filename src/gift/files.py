"""Files written whole or not at all, and folders that one run owns."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from safetensors import SafetensorError

from gift.errors import GiftError, shown
from gift.launch import is_main

LOCK = ".gift-lock"
LEFT = re.compile(r"\.(?P<name>.+)-(?P<what>part|old)-(?P<mark>[a-z0-9_]{8})", re.DOTALL)
"""The names of what is half written, and of what is being replaced where that takes two steps; a killed run leaves them behind."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def file_word(text: str) -> str:
    """A name as part of a file's name: 'full after 10' as 'full-after-10'."""
    return re.sub(r"[^\w.-]+", "-", text)


def sync(path: Path) -> None:
    """Flushes a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def need_utf8(path: Path) -> None:
    """Verifies that a path is UTF-8: safetensors opens no other.

    Raises:
        GiftError: it is not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise GiftError(f"the path {shown(path)} is not UTF-8; rename it") from error


def need_room(target: Path, size: int) -> None:
    """Verifies that a disk has room for what is going to be written.

    Args:
        target: the file or folder; it need not be there yet.
        size: bytes.

    Raises:
        GiftError: it has not; nothing was written.
    """
    place = next((folder for folder in target.absolute().parents if folder.is_dir()), None)
    with suppress(OSError):  # a file system that does not say
        free = shutil.disk_usage(place or "/").free
        if free < size:
            raise GiftError(
                f"no room for {target}: {_told(size)} are needed and {_told(free)} are free; "
                "nothing was written: free some room or choose another folder"
            )


def _told(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _take(path: Path) -> int:
    """A handle that keeps other runs' hands off a file or folder; the system drops it with the process, however that ends.

    Raises:
        OSError: another run has it (BlockingIOError), it is gone, or the file system knows no locks.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


@contextmanager
def _part_of(target: Path, *, folder: bool) -> Iterator[Path]:
    """A temporary neighbour of `target`, locked; what has its name at the end goes."""
    prefix, handle = f".{target.name}-part-", None
    while True:
        if folder:
            part = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
        else:
            number, name = tempfile.mkstemp(dir=target.parent, prefix=prefix)
            os.close(number)
            part = Path(name)
        try:
            handle = _take(part)
            if part.exists():
                break
            os.close(handle)
        except (BlockingIOError, FileNotFoundError):
            continue  # a tidying run came between the making and the lock
        except OSError:
            break  # no locks: nobody gets one, so nobody tidies up
    try:
        yield part
    finally:
        _remove(part)
        if handle is not None:
            os.close(handle)


@contextmanager
def _dead(path: Path) -> Iterator[bool]:
    """Whether no run writes there any more; inside the block none begins to."""
    handle = None
    try:
        handle = _take(path)
        dead = True
    except FileNotFoundError:
        dead = True
    except OSError:
        dead = False
    try:
        yield dead
    finally:
        if handle is not None:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def sweep(folder: Path, names: str) -> None:
    """Tidies up after killed runs: what they left half written goes, what one was about to replace is put back.

    What a live run is writing is locked, and left alone.

    Args:
        folder: where to look; not below it.
        names: a regular expression for the names of the files and folders that were being written.
    """
    with suppress(OSError):
        for path in list(folder.iterdir()):
            match = LEFT.fullmatch(path.name)
            if not match or not re.fullmatch(names, match["name"]):
                continue
            target, part = folder / match["name"], folder / f".{match['name']}-part-{match['mark']}"
            with _dead(part) as dead:
                if not dead:
                    continue
                if match["what"] == "old" and not target.exists():
                    path.replace(target)
                else:
                    _remove(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes beside the target, flushes, renames: a reader sees the old file or the new one, never half.

    Of several processes that run together, the first one writes.

    Raises:
        GiftError: the folder can't be written or the disk is full; the old file is untouched.
    """
    if not is_main():
        return
    need_room(path, len(data))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, re.escape(path.name))
        with _part_of(path, folder=False) as part:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.chmod(0o644)
            part.replace(path)
        sync(path.parent)
    except OSError as error:
        raise GiftError(f"can't write {path}: {error.strerror or error}; choose another folder or free some room") from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text, UTF-8. Undecodable bytes of file names become escapes, which JSON and YAML read back."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` for JSON with a stable layout. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def exchanged(one: Path, other: Path) -> bool:
    """Swaps the names of two folders in one step; False where system or file system can't (Linux can, on most of its own)."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return swap is not None and swap(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def _is_no_folder(path: Path) -> bool:
    """Whether something else has this name; a name too long to exist is told when it is written."""
    try:
        return path.exists() and not path.is_dir()
    except OSError:
        return False


@contextmanager
def whole_folder(target: Path, size: int = 0) -> Iterator[Path]:
    """Gives a temporary folder beside `target` that replaces it only when the block ends well.

    Whenever the process is killed, the old folder is there or the new one, and never half of one. Where the two names can't be
    swapped in one step (see `exchanged`), the old folder may have been put aside at that moment; the next writer puts it back.
    Of several processes that run together, only the first one's does; what the others write is thrown away.

    Args:
        target: the folder.
        size: bytes that will be written, as far as that is known: the disk is asked for room first.

    Raises:
        GiftError: the place can't be written, there is no room, or `target` is a file.
    """
    if _is_no_folder(target):
        raise GiftError(f"{target} is a file; give a folder")
    if not is_main():
        with tempfile.TemporaryDirectory() as thrown:
            yield Path(thrown)
        return
    need_room(target, size)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent, re.escape(target.name))
        with _part_of(target, folder=True) as part:
            yield part
            for file in part.rglob("*"):
                if file.is_file():
                    file.chmod(0o644)  # some writers leave files that only their owner can read
                sync(file)
            part.chmod(0o755)
            sync(part)
            _replace(target, part)
    except (OSError, SafetensorError) as error:  # safetensors tells of a full disk in its own way
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise GiftError(f"can't write {target}: {reason}; free some room or choose another folder") from error


def _replace(target: Path, part: Path) -> None:
    """Gives `part` the name of `target`; what had it is gone once this returns."""
    if not target.exists():
        part.replace(target)
        sync(target.parent)
        return
    if exchanged(part, target):
        sync(target.parent)
        return  # `part` is now the old one, and goes as any other part
    old = target.with_name(f".{target.name}-old-{part.name[-8:]}")
    target.replace(old)
    try:
        part.replace(target)
    except OSError:
        old.replace(target)
        raise
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder in one step for whoever looks: it loses its name first, then its files."""
    gone = folder.with_name(f".{folder.name}-part-{token_hex(4)}")
    with suppress(OSError):
        folder.replace(gone)
    shutil.rmtree(gone if gone.exists() else folder, ignore_errors=True)


@contextmanager
def owned(folder: Path) -> Iterator[Path]:
    """Holds an output folder for this run, so that a second one is told rather than mixed in; the first process holds it for all.

    Raises:
        GiftError: the folder is in use by a running command, is a file, or can't be written.
    """
    if _is_no_folder(folder):
        raise GiftError(f"{folder} is a file; give a folder for --output")
    if not is_main():
        yield folder
        return
    try:
        fresh = not folder.exists()
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
