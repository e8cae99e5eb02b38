"""One attack on one model, scored along the way: the piece that the demo, the command line and the library share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from gift.attacks import Attack, Attacked
from gift.bench.workbench import Scorer
from gift.data.latents import LatentSet
from gift.data.mention import reworded
from gift.data.prompts import Ask
from gift.errors import NotEnoughMemory
from gift.metrics.concept import mean
from gift.models import DenoisingModel
from gift.room import explained
from gift.training.checkpoint import Checkpoints
from gift.training.precision import EXACT, Saving
from gift.training.progress import Reporter, Silent


@dataclass(frozen=True)
class Scored:
    """Generated pictures with their scores."""

    images: torch.Tensor
    scores: list[float]

    @property
    def score(self) -> float:
        """The mean score."""
        return mean(self.scores)


Watch = Callable[[int, Scored], None]
"""Told of each look as it is taken: the attack's step and what was seen. What it raises ends the attack."""


def score_model(model: DenoisingModel, asks: Sequence[Ask], scorer: Scorer) -> Scored:
    """Generates a picture for each ask and scores it.

    Raises:
        NonFiniteError: the model draws NaN.
        NotEnoughMemory: there is no room for a single picture, or for the scorer.
    """
    images = model.generate([a.prompt for a in asks], [a.seed for a in asks])
    with explained("to score pictures"):
        return Scored(images, scorer(images))


def steps_to_look(steps: int) -> list[int]:
    """Where a recovery curve is measured: dense at the start, where erasure is undone, and at the end."""
    return sorted({0, steps, *(s for s in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if s < steps)})


@dataclass(frozen=True)
class Trial:
    """An attack's outcome with what was seen on the way, and what was asked for."""

    attacked: Attacked
    seen: dict[int, Scored]
    asks: Sequence[Ask]

    @property
    def curve(self) -> list[tuple[int, float]]:
        """(attack step, concept score)."""
        return [(step, scored.score) for step, scored in sorted(self.seen.items())]

    def training(self) -> dict[str, Any]:
        """How the training went and what it cost, as JSON."""
        done = self.attacked
        return {
            "losses": [logs["loss"] for logs in done.logs],
            "norms": [logs["gradient_norm"] for logs in done.logs],
            "matched": done.matched,
            "seconds": done.seconds,
            "peak_mb": done.peak_mb,
        }


def attack_and_score(
    model: DenoisingModel,
    attack: Attack,
    data: LatentSet,
    asks: Sequence[Ask],
    scorer: Scorer,
    *,
    seed: int,
    harmless: LatentSet | None = None,
    base: DenoisingModel | None = None,
    before: Scored | None = None,
    checkpoints: Checkpoints | None = None,
    reporter: Reporter | None = None,
    watch: Watch | None = None,
    saving: Saving = EXACT,
    patient: bool = False,
) -> Trial:
    """Attacks a copy of `model` and scores it at `steps_to_look`.

    An attacker who has a word of their own for the concept asks with it: the prompts change, the seeds stay, and step 0 is
    scored with the changed prompts, too.

    Args:
        model: the weights under attack; unchanged.
        attack: what is done to them.
        data: the attacker's pictures.
        asks: evaluation prompts, with seeds.
        scorer: finds the concept.
        seed: of the attack.
        harmless: other pictures, for attacks that need them.
        base: a public model, for attacks that need one.
        before: the score of the prompts as they are without attack, where it is known already.
        checkpoints: where to keep and find the attack's checkpoints.
        reporter: told of progress.
        watch: told of each look after the first; again of those that a resumed run takes again.
        saving: of memory and time, against rounding.
        patient: go on without the looks for which memory gives out, rather than stop: the training fits, and its weights count.

    Raises:
        NotEnoughMemory: for a look, unless `patient`.
    """
    say = reporter.say if reporter else Silent().say

    def look_at(step: int, shown: DenoisingModel, asks: Sequence[Ask]) -> Scored | None:
        try:
            return score_model(shown, asks, scorer)
        except NotEnoughMemory as error:
            if not patient:
                raise
            say(f"warning: no score at step {step}: {error}")
            return None

    own = [replace(ask, prompt=reworded(ask.prompt, ask.mention, attack.word)) for ask in asks]
    first = {0: before or look_at(0, model, asks)} if own == list(asks) else {}

    def observe(step: int, attacked: DenoisingModel) -> dict[str, object] | None:
        scored = look_at(step, attacked, own)
        if scored is None:
            return None
        if watch:
            watch(step, scored)
        return {"images": scored.images, "scores": scored.scores}

    look = [step for step in steps_to_look(attack.steps) if step not in first]
    done = attack(
        model,
        data,
        harmless=harmless,
        base=base,
        seed=seed,
        at=look,
        observe=observe,
        checkpoints=checkpoints,
        reporter=reporter,
        saving=saving,
    )
    seen = {step: Scored(found["images"], list(found["scores"])) for step, found in done.observations if found is not None}
    return Trial(done, {step: scored for step, scored in first.items() if scored} | seen, own)
