"""Errors that a user can act on. Everything else is a bug and keeps its traceback."""

from __future__ import annotations


class GiftError(Exception):
    """Bad input or a state that the user can mend. The message is one line: what is wrong, then the remedy."""

    exit_code = 2


class NonFiniteError(GiftError):
    """A loss, gradient, weight or picture is NaN or infinite."""

    exit_code = 3


class CellsFailed(GiftError):  # noqa: N818 - a grid's verdict
    """Some cells of a grid could not be computed; the others are written."""

    exit_code = 1


class Interrupted(GiftError):  # noqa: N818 - not a fault
    """Stopped on request; a checkpoint was written and the same command goes on from it."""

    exit_code = 130


def one_of(what: str, given: str, known: list[str]) -> GiftError:
    """The error for an unknown name, with the nearest known ones."""
    from difflib import get_close_matches

    near = get_close_matches(given, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known[:12])}{', …' if len(known) > 12 else ''}"
    return GiftError(f"no {what} '{given}'; {hint}")
