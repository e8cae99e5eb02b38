"""The pieces that measure weights or pictures: scores, the price of a defence, what it does next door, and likeness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from gift.bench.context import Context, embedder
from gift.bench.harmless import teach
from gift.bench.neighbours import neighbour_scores
from gift.bench.price import price_of, real_of, redrawn_of, shift_of
from gift.bench.safe_after import safe_accuracy
from gift.bench.trial import score_model
from gift.bench.work import Value, Work
from gift.bench.workbench import Workbench
from gift.errors import GiftError
from gift.metrics.embedders import Embedder
from gift.settings import make_attack


def score(work: Work) -> Value:
    """The concept's score before any attack."""
    bench = work.context.bench
    scored = score_model(work.model(), bench.asks(work.piece.settings["pictures"]), bench.scorer)
    return {"images": scored.images, "scores": scored.scores}


def price(work: Work) -> Value:
    """Pictures of safe prompts beside the original's."""
    bench = work.context.bench
    asks = bench.safe_evaluation(work.piece.settings["pictures"])
    images = work.model().generate([a.prompt for a in asks], [a.seed for a in asks])
    reference: torch.Tensor = work.need("original")["images"] if "original" in work.piece.needs else images
    return {"images": images, **price_of(bench, asks, images, reference)}


def _real(work: Work) -> torch.Tensor:
    """The drawings of the safe prompts."""
    drawn = work.context.bench.drawings(work.context.bench.safe_evaluation(work.piece.settings["pictures"]))
    assert drawn is not None  # a grid's concepts are recognised, so its models know the drawings
    return drawn


def real(work: Work) -> Value:
    """Pictures of safe prompts beside the drawings of the same, and the original's."""
    images, reference = work.need("price")["images"], work.need("original")["images"]
    return real_of(work.context.bench, _real(work), images, reference)


def redrawn(work: Work) -> Value:
    """Pictures of the same safe prompts by the original from other noise, beside its first."""
    bench = work.context.bench
    asks = bench.safe_evaluation(work.piece.settings["pictures"], again=True)
    again = work.model().generate([a.prompt for a in asks], [a.seed for a in asks])
    return redrawn_of(bench, work.need("original")["images"], again)


def safe(work: Work) -> Value:
    """The safe accuracy before any attack, of the pictures that are drawn after each."""
    return {"accuracy": safe_accuracy(work.beside, work.model())}


def harmless(work: Work) -> Value:
    """How well the weights learn a harmless object."""
    settings = work.piece.settings
    bench = _of_object(work, settings["harmless"])
    how = make_attack(settings["attack"], settings["arguments"])
    data, asks = bench.attack_set(2 * settings["pictures"]), bench.asks(settings["drawn"])
    left = partial(safe_accuracy, work.beside) if settings.get("safe_after") else None
    return teach(work.model(), how, data, settings["seed"], asks, bench.scorer, left)


def _of_object(work: Work, concept: str) -> Workbench:
    """A concept's workbench, whose drawings are in no style that a defence is about."""
    settings = work.piece.settings
    places = work.piece.places
    bench = Context.of(places["model"], concept, settings["seed"], drawn=places["drawn"]).bench
    styles = settings.get("without", [])
    return replace(bench, art=bench.art.without(styles)) if styles and bench.art else bench


def neighbours(work: Work) -> Value:
    """How well the concept's neighbours are drawn."""
    return neighbour_scores(work.context.bench, work.model(), work.piece.settings["pictures"])


def _embedder(work: Work) -> Embedder:
    """What compares pictures.

    Raises:
        GiftError: the network at that place is another than when the grid was laid out.
    """
    place = work.piece.places["embedder"]
    found = embedder(place)
    if found.identity != work.piece.settings["embedder"]:
        raise GiftError(f"{place} is another network than when the grid was laid out; start the grid again")
    return found


def likeness(work: Work) -> Value:
    """How much drawn pictures look like those that were taught."""
    settings, by = work.piece.settings, _embedder(work)
    drawn = work.need("drawn")
    n = drawn.get("pictures", settings["pictures"])  # a search may choose
    taught = _of_object(work, settings["of"]).attack_images(settings.get("among", n))[:n]
    return {
        "looks": [{"step": look["step"], "similarity": _rounded(by.similarity(look["images"], taught))} for look in drawn["looks"]]
    }


def shift(work: Work) -> Value:
    """How far pictures of safe prompts moved from the original's, and are from the drawings."""
    by = _embedder(work)
    images, reference = work.need("price")["images"], work.need("original")["images"]
    return shift_of(by, images, reference, _real(work))


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 6) for value in values]
