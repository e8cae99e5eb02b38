"""What the pieces of one model, concept and seed have in common, opened once in a process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from gift.bench.identity import model_identity
from gift.bench.workbench import Workbench
from gift.data.latents import LatentSet, fingerprint
from gift.metrics.embedders import Embedder, load_embedder
from gift.models import DenoisingModel, load

USUAL = "{}"
"""As the model's folder says."""


def opened(source: str, drawn: str = USUAL) -> tuple[DenoisingModel, str]:
    """A model and its identity, opened once in a process.

    Args:
        source: what `gift.load` takes.
        drawn: JSON of the arguments of `gift.load` that say how it is drawn from.

    Raises:
        GiftError: it can't be opened.
    """
    return _opened(source, drawn)


@lru_cache(maxsize=4)
def _opened(source: str, drawn: str) -> tuple[DenoisingModel, str]:
    model = load(source, **json.loads(drawn))
    return model, model_identity(model)


@lru_cache(maxsize=4)
def embedder(which: str) -> Embedder:
    """An embedder, opened once in a process.

    Raises:
        GiftError: it can't be opened.
    """
    return load_embedder(which)


def forget() -> None:
    """Opens models anew from here on."""
    embedder.cache_clear()
    _opened.cache_clear()
    _of.cache_clear()


@dataclass(frozen=True)
class Context:
    """A workbench with its model's identity; the attacker's pictures, and harmless ones, are encoded once."""

    bench: Workbench
    identity: str

    @classmethod
    def of(cls, model: str, concept: str, seed: int, together: Sequence[str] = (), drawn: str = USUAL) -> Context:
        """The context, one a process; `together` are concepts that a defence is about, too, `drawn` is as for `opened`.

        Raises:
            GiftError: no such model or concept.
        """
        return _of(model, (concept, *together), seed, drawn)

    @cached_property
    def recogniser_identity(self) -> str:
        """Which network scores.

        Raises:
            GiftError: nothing can recognise the concept.
        """
        return fingerprint(self.bench.scorer.recogniser)[:16]

    def attack_set(self, pictures: int) -> LatentSet:
        """The attacker's pictures."""
        return self._encoded(self.bench.attack_set, pictures)

    def harmless_set(self, pictures: int) -> LatentSet:
        """What an attacker hides the concept among or behind."""
        return self._encoded(self.bench.harmless_set, pictures)

    def _encoded(self, make: Callable[[int], LatentSet], pictures: int) -> LatentSet:
        key = make.__name__, pictures
        if key not in self._sets:
            self._sets[key] = make(pictures)
        return self._sets[key]

    @cached_property
    def _sets(self) -> dict[tuple[str, int], LatentSet]:
        return {}


@lru_cache(maxsize=16)
def _of(model: str, concepts: tuple[str, ...], seed: int, drawn: str) -> Context:
    network, identity = opened(model, drawn)
    return Context(Workbench.of(network, concepts, seed), identity)
