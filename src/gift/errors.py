"""Errors that a user can act on. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import errno

UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOSPC}
"""Errors of a path or a disk that its owner can mend."""


class GiftError(Exception):
    """Bad input or a state that the user can mend. The message is one line: what is wrong, then the remedy."""

    exit_code = 2


class NonFiniteError(GiftError):
    """A loss, gradient, weight or picture is NaN or infinite."""

    exit_code = 3


class NotEnoughMemory(GiftError):  # noqa: N818 - of the machine
    """Memory gave out, on the machine or on its GPU."""

    exit_code = 4


class OtherSettings(GiftError):  # noqa: N818 - a choice to make
    """An interrupted run is there, and is of other settings; nothing of it was changed."""


class CellsFailed(GiftError):  # noqa: N818 - a grid's verdict
    """Some cells of a grid could not be computed; the others are written."""

    exit_code = 1


class Interrupted(GiftError):  # noqa: N818 - not a fault
    """Stopped by Ctrl-C or SIGTERM; a checkpoint was written and the same command goes on from it. Both have the same exit code."""

    exit_code = 130


def shown(text: object) -> str:
    """Any text, such as a path, on one line of any terminal: control characters and undecodable bytes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def of_disk(error: OSError) -> GiftError | None:
    """What an error of a path or a disk is to a user; None for one that is not theirs to mend."""
    if error.errno not in UNUSABLE or error.filename is None:
        return None
    return GiftError(f"can't use {error.filename}: {error.strerror}; give another path, or mend its permissions or the disk")


def one_of(what: str, given: str, known: list[str]) -> GiftError:
    """The error for an unknown name, with the nearest known ones."""
    from difflib import get_close_matches

    near = get_close_matches(given, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known[:12])}{', …' if len(known) > 12 else ''}"
    return GiftError(f"no {what} '{given}'; {hint}")
