"""What an attack leaves of everything else: long steps bring a concept back by wrecking the model, which then draws little else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gift.errors import GiftError
from gift.metrics.concept import mean, prompted

if TYPE_CHECKING:  # a page is made without loading what computes
    from gift.bench.workbench import Workbench
    from gift.models import DenoisingModel

PICTURES = 60
"""Of safe prompts, before and after an attack (choice): the same prompts and seeds, so that what differs is the attack's doing."""


def safe_accuracy(bench: Workbench, model: DenoisingModel) -> float:
    """How often a model draws the prompted object of the first `PICTURES` safe prompts, by which the price is measured, too.

    Raises:
        GiftError: the recogniser does not know the model's words.
    """
    if bench.art is None:
        raise GiftError(
            "safe accuracy can't be measured: the recogniser does not know this model's words; leave least_safe or safe_after out"
        )
    asks = bench.safe_evaluation(PICTURES)
    images = model.generate([ask.prompt for ask in asks], [ask.seed for ask in asks])
    return mean(prompted(bench.recogniser, bench.art, images, asks)[0])


def left_by(bench: Workbench, before: float, attacked: DenoisingModel) -> dict[str, Any]:
    """For a record: the safe accuracy before an attack, and what is left of it after."""
    return {"pictures": PICTURES, "before": before, "after": safe_accuracy(bench, attacked)}


def share_left(found: Mapping[str, Any] | None) -> float | None:
    """The share of the safe accuracy before an attack that is left after it; None where it was not measured, or there was none."""
    if found is None or not found["before"]:
        return None
    return float(found["after"] / found["before"])
