"""The pieces of a grid and how they hang together: each named by a hash of all that it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from gift.bench.store import Store

Kind = Literal[
    "set",
    "defence",
    "score",
    "price",
    "real",
    "redrawn",
    "neighbours",
    "safe",
    "attack",
    "search",
    "harmless",
    "likeness",
    "shift",
]


@dataclass(frozen=True)
class Piece:
    """One unit of work, self-contained, so that any process can do it.

    Attributes:
        kind: what is computed.
        label: for the reader.
        settings: all that the outcome depends on besides the needs, as JSON.
        needs: the pieces that it is computed from, by what they are to it.
        places: where the models are found on this machine, and how they are opened to be drawn from; no part of the identity (what
            they draw with is one of theirs).
        gate: a piece that must show the concept before this one is worth while; no part of the identity.
    """

    kind: Kind
    label: str
    settings: Mapping[str, Any]
    needs: Mapping[str, Piece] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    gate: Piece | None = None

    @cached_property
    def content(self) -> dict[str, Any]:
        """What the key is a hash of."""
        return {"settings": dict(self.settings), "needs": {role: piece.key for role, piece in self.needs.items()}}

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits."""
        return Store.key(self.kind, self.content)

    @property
    def before(self) -> tuple[Piece, ...]:
        """The pieces that must be there before this one can be computed."""
        return (*self.needs.values(), *([self.gate] if self.gate else []))


def in_order(pieces: Iterable[Piece]) -> dict[str, Piece]:
    """These and all that they rest on by key, each once and after what it rests on."""
    out: dict[str, Piece] = {}

    def add(piece: Piece) -> None:
        if piece.key not in out:
            for earlier in piece.before:
                add(earlier)
            out[piece.key] = piece

    for piece in pieces:
        add(piece)
    return out
