"""Computes one piece, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable

from gift.bench import measured, trained
from gift.bench.work import Value, Work, found
from gift.errors import GiftError
from gift.metrics.concept import mean

KINDS: dict[str, Callable[[Work], Value]] = {
    "set": trained.draw,
    "defence": trained.defend,
    "attack": trained.attack,
    "search": trained.search_worst,
    "safe": measured.safe,
    "score": measured.score,
    "price": measured.price,
    "real": measured.real,
    "redrawn": measured.redrawn,
    "neighbours": measured.neighbours,
    "harmless": measured.harmless,
    "likeness": measured.likeness,
    "shift": measured.shift,
}


def remember(work: Work) -> tuple[Value, bool]:
    """A piece, and whether it had to be computed.

    Raises:
        GiftError: a piece that it rests on is missing, or what its kind raises.
    """
    fresh: list[bool] = []

    def compute() -> Value:
        fresh.append(True)
        _pass_gate(work)
        return KINDS[work.piece.kind](work)

    value = work.store.remember(work.piece.kind, work.piece.content, compute)
    work.checkpoints().clear()  # not before the piece is written
    return value, bool(fresh)


def _pass_gate(work: Work) -> None:
    """Nothing can be shown with a concept that the original model never draws."""
    if work.piece.gate and mean(found(work.store, work.piece.gate)["scores"]) == 0:
        concept = work.piece.settings["concept"]
        raise GiftError(
            f"the original model never draws '{concept}', so nothing can be shown; choose another concept or more pictures"
        )
