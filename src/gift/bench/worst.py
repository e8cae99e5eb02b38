"""The worst attack on one model, outside a grid."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from gift.attacks import Attack
from gift.bench.identity import attack_settings, digest, options_of
from gift.bench.safe_after import left_by, safe_accuracy
from gift.bench.search import search
from gift.bench.space import SearchConfig, without_harmless
from gift.bench.trained import as_value
from gift.bench.trial import Watch, attack_and_score, score_model
from gift.bench.workbench import Workbench
from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.models import DenoisingModel
from gift.training.checkpoint import Checkpoints
from gift.training.precision import EXACT, Saving
from gift.training.progress import Reporter

STUDY = "study.db"


def find_worst(
    model: DenoisingModel,
    concept: str,
    first: Attack,
    config: SearchConfig,
    folder: Path,
    *,
    base: DenoisingModel | None = None,
    pictures: int | None = None,
    evaluation_pictures: int = 36,
    similarity: str | None = None,
    concept_images: Path | None = None,
    harmless_images: Path | None = None,
    skip_bad_images: bool = False,
    seed: int = 0,
    reporter: Reporter | None = None,
    saving: Saving = EXACT,
) -> dict[str, Any]:
    """Searches for the attack that brings most of a concept back on a model's weights.

    Args:
        model: the weights under attack; unchanged.
        concept: what the attacker wants back.
        first: the default attack, which is the first trial.
        config: ranges, trials, pruner.
        folder: holds the study, `study.db`, which goes on where it stopped, and checkpoints in `work/`.
        base: a public model, for attacks that lean on one.
        pictures: how many bundled drawings the attacker has; None for as many as suit the default attack.
        evaluation_pictures: pictures a score.
        similarity: score by likeness to the attacker's pictures, with this embedder, rather than by the recogniser.
        concept_images: the attacker's own pictures instead of the drawings.
        harmless_images: the attacker's own other pictures instead of other drawings.
        skip_bad_images: go on without pictures that can't be read, rather than stop.
        seed: of all draws, and of the search's proposals.
        reporter: told of progress.
        saving: of memory and time, against rounding; the attacker's.

    Returns:
        As `search`, and `score_before`, the score without any attack.

    Raises:
        GiftError: nothing can recognise the concept, or, with `least_safe`, anything else; there are no harmless pictures for a
            `least_share`; `pictures_tried` and pictures of the attacker's own; the folder holds another search.
        Interrupted: stopped on request.
    """
    say, pictures = reporter.say if reporter else lambda text: None, first.drawings(pictures)
    bench = Workbench.of(model, concept, seed, say=say, skip_bad_images=skip_bad_images)
    no_harmless = bench.art is None and harmless_images is None
    if no_harmless and config.least_share is not None:  # told before any picture is drawn
        raise GiftError("least_share mixes harmless pictures in, and none are bundled for this model; give some, or leave it out")
    if concept_images is not None and config.pictures_tried:
        raise GiftError("pictures_tried is of bundled drawings, and all in concept_images are used; leave one of them out")
    asks, scorer = bench.asks(evaluation_pictures), bench.judge(similarity, pictures, concept_images)
    before = score_model(model, asks, scorer)
    safe = None if config.least_safe is None else safe_accuracy(bench, model)
    cache = folder / "work" / "latents"
    config = without_harmless(config) if no_harmless else config

    @lru_cache
    def sets(n: int) -> tuple[LatentSet, LatentSet | None]:
        """What an attacker of so many pictures has, and as many harmless ones if there are any."""
        return bench.attack_set(n, concept_images, cache), None if no_harmless else bench.harmless_set(n, harmless_images, cache)

    data, harmless = sets(pictures)
    settings = attack_settings(
        model,
        first,
        data,
        concept=concept,
        seed=seed,
        evaluation_pictures=evaluation_pictures,
        saving=saving,
        similarity=similarity,
        harmless=harmless,
        base=base,
    )

    def attempt(number: int, how: Attack, having: int, watch: Watch) -> dict[str, Any]:
        data, harmless = sets(having)
        kept = Checkpoints(folder / "work" / f"trial-{number}", {**settings, "method": options_of(how), "pictures": having})
        done = attack_and_score(
            model,
            how,
            data,
            asks,
            scorer,
            seed=seed,
            harmless=harmless if how.needs_harmless else None,
            base=base,
            before=before,
            checkpoints=kept,
            reporter=reporter,
            watch=watch,
            saving=saving,
        )
        kept.clear()
        return as_value(how, done) | ({} if safe is None else {"safe_after": left_by(bench, safe, done.attacked.model)})

    of = digest(settings)
    found = search(config, first, attempt, folder / STUDY, model=model, pictures=pictures, seed=seed, of=of, reporter=reporter)
    return {"score_before": before.score, **found}
