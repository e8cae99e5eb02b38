"""The library's front door: `load`, `immunize`, `attack`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gift.bench.identity import attack_settings, run_settings
from gift.bench.losses import Losses, mean_losses, parts_of
from gift.bench.trial import Trial, attack_and_score
from gift.bench.workbench import Folders, Workbench, joined
from gift.data.latents import shares_of
from gift.errors import GiftError
from gift.models import DenoisingModel, load
from gift.settings import make_attack, make_immunizers
from gift.training.checkpoint import Checkpoints
from gift.training.measure import Meter
from gift.training.precision import EXACT, Saving
from gift.training.progress import Reporter, Silent

__all__ = ["Curve", "attack", "immunize", "load"]

ONE_CONCEPT = "an attack is about one concept; run it once for each"


def immunize(
    model: DenoisingModel | str | Path,
    concept: str | Sequence[str],
    method: str = "gift",
    *,
    seed: int = 0,
    concept_images: Folders = None,
    safe_images: Path | str | None = None,
    concept_pictures: int = 64,
    safe_pictures: int = 512,
    balance: Sequence[float] | None = None,
    skip_bad_images: bool = False,
    cache: Path | str | None = None,
    work: Path | str | None = None,
    reporter: Reporter | None = None,
    saving: Saving = EXACT,
    told: Callable[[Losses], None] | None = None,
    in_place: bool = False,
    keep_work: bool = False,
    meter: Meter | None = None,
    **options: Any,
) -> DenoisingModel:
    """Gives a copy of a model that is immunized against a concept. The model itself is not changed, unless `in_place`.

    Args:
        model: a model, or what `load` takes.
        concept: 'mushroom', 'style:openmoji', 'category:food', or several; free text for models with their own vocabulary.
        method: a method, or a chain such as 'esd+gift'.
        seed: of all draws.
        concept_images: a folder of the concept's pictures, for several concepts a list, one each; without it (None in a list) the
            model draws its own.
        safe_images: a folder of pictures to keep; without it the model draws its own.
        concept_pictures: how many pictures of the concept are drawn (choice); of several concepts together, at least 16 of each.
        safe_pictures: how many safe pictures are drawn (choice).
        balance: of several concepts each one's share of a batch; equal shares by default.
        skip_bad_images: go on without pictures that can't be read, rather than stop.
        cache: where encoded pictures are kept.
        work: where checkpoints are kept, so that an interrupted run goes on; None for none.
        reporter: told of progress.
        saving: of memory and time, against rounding.
        told: is told each concept's and the safe set's mean loss, before and after.
        in_place: change `model` itself: its weights are then in memory once. So it is done where `model` is a path or a name.
        keep_work: leave the checkpoints when the run is done, for a caller who still has the result to write.
        meter: of the cost; goes on from checkpoints, too.
        **options: hyperparameters of the last method; those of any method of the chain under its name, as esd={"steps": 20}.

    Raises:
        GiftError: an unknown concept, method or option, a share or folder too many or too few, or pictures that can't be used.
        NonFiniteError: the training broke down.
        Interrupted: stopped on request.
    """
    _counted(concept_pictures=concept_pictures, safe_pictures=safe_pictures)
    cache, work = Path(cache) if cache else None, Path(work) if work else None
    immunizers = make_immunizers(method, options)
    if not isinstance(model, DenoisingModel):
        model, in_place = load(model), True
    say = reporter.say if reporter else Silent().say
    bench = Workbench.of(model, concept, seed, say=say, skip_bad_images=skip_bad_images)
    shares = shares_of(len(bench.concepts), balance)
    parts = bench.concept_sets(concept_pictures, concept_images, cache)
    sizes, harmful = [len(part) for part in parts], joined(parts, balance)
    del parts
    safe = bench.safe_set(safe_pictures, Path(safe_images) if safe_images else None, cache)
    sets = parts_of(bench.concepts, sizes, harmful, safe) if told else {}
    before = mean_losses(model, sets)
    rest = {"concept": [str(c) for c in bench.concepts], "seed": seed, "pictures": harmful.identity, "safe pictures": safe.identity}
    rest |= saving.settings() | ({"shares": shares} if len(shares) > 1 else {})
    stages = [
        Checkpoints(work / f"{i}-{immunizer.name}", run_settings(model, immunizers[: i + 1], **rest), meter=meter) if work else None
        for i, immunizer in enumerate(immunizers)
    ]
    for i, (immunizer, kept) in enumerate(zip(immunizers, stages, strict=True)):
        model = immunizer(
            model,
            harmful,
            safe,
            seed=seed,
            checkpoints=kept,
            reporter=reporter,
            saving=saving,
            in_place=in_place or i > 0,
        )
    for kept in stages:
        if kept and not keep_work:
            kept.clear()
    if told:
        after = mean_losses(model, sets)
        found: Losses = {n: {"pictures": len(sets[n]), "before": before[n], "after": after[n]} for n in sets}
        for each, share in zip(bench.concepts, shares, strict=True):
            found[str(each)]["share"] = share
        told(found)
    return model


def _counted(**numbers: int) -> None:
    """Verifies that there is at least one picture of each kind.

    Raises:
        GiftError: there is none, by name.
    """
    for name, number in numbers.items():
        if number < 1:
            raise GiftError(f"{name}={number}: give at least 1")


class Curve(list[tuple[int, float]]):
    """A recovery curve, [(attack step, concept score), …], with the attack that made it in `trial`."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial.curve)
        self.trial = trial

    def save(self, folder: Path | str) -> Path:
        """Writes what the attacker would share: adapter files, or the whole pipeline."""
        return self.trial.attacked.save(folder)


def attack(
    model: DenoisingModel | str | Path,
    concept: str,
    attack: str = "lora",
    *,
    steps: int = 150,
    seed: int = 0,
    concept_images: Path | str | None = None,
    harmless_images: Path | str | None = None,
    base: DenoisingModel | str | Path | None = None,
    pictures: int | None = None,
    evaluation_pictures: int = 36,
    similarity: str | None = None,
    skip_bad_images: bool = False,
    cache: Path | str | None = None,
    work: Path | str | None = None,
    reporter: Reporter | None = None,
    saving: Saving = EXACT,
    keep_work: bool = False,
    **options: Any,
) -> Curve:
    """Fine-tunes a copy of a model toward a concept and scores it on the way. The model itself is not changed.

    Where memory suffices for the training but not for a score, that score is left out, with a warning to the reporter.

    Args:
        model: a model, or what `load` takes.
        concept: what the attacker wants back: one concept.
        attack: the attack's name.
        steps: of the attack.
        seed: of all draws.
        concept_images: the attacker's pictures; without it, bundled drawings.
        harmless_images: other pictures, for attacks that hide the concept among them; without it, bundled drawings.
        base: a public model, or what `load` takes, for attacks that lean on one.
        pictures: how many bundled drawings; None for 64, or 7 for an attack that learns from a few pictures (choices).
        evaluation_pictures: pictures a score (choice).
        similarity: score by likeness to the attacker's pictures, with this embedder ('bundled', 'clip:FOLDER', …), rather than by
            the recogniser; for concepts and models that it does not know.
        skip_bad_images: go on without pictures that can't be read, rather than stop.
        cache: where encoded pictures are kept.
        work: where checkpoints are kept; None for none.
        reporter: told of progress.
        saving: of memory and time, against rounding.
        keep_work: leave the checkpoints when the run is done, for a caller who still has the result to write.
        **options: hyperparameters of the attack.

    Raises:
        GiftError: an unknown concept, attack or option; several concepts; a base or harmless pictures that the attack does not use;
            or nothing can recognise the concept.
    """
    if not isinstance(concept, str):
        raise GiftError(ONE_CONCEPT)
    _counted(evaluation_pictures=evaluation_pictures, **({} if pictures is None else {"pictures": pictures}))
    cache, work = Path(cache) if cache else None, Path(work) if work else None
    how = make_attack(attack, {"steps": steps, **options})
    how.refuse_unused(base=base is not None, harmless_images=harmless_images is not None)
    model = model if isinstance(model, DenoisingModel) else load(model)
    say, pictures = reporter.say if reporter else Silent().say, how.drawings(pictures)
    bench = Workbench.of(model, concept, seed, say=say, skip_bad_images=skip_bad_images)
    scorer = bench.judge(similarity, pictures, Path(concept_images) if concept_images else None)
    data = bench.attack_set(pictures, Path(concept_images) if concept_images else None, cache)
    harmless = None
    if how.needs_harmless:
        harmless = bench.harmless_set(pictures, Path(harmless_images) if harmless_images else None, cache)
    if base is not None and not isinstance(base, DenoisingModel):
        base = load(base)
    asks = bench.asks(evaluation_pictures)
    kept = None
    if work:
        settings = attack_settings(
            model,
            how,
            data,
            concept=concept,
            seed=seed,
            evaluation_pictures=evaluation_pictures,
            saving=saving,
            similarity=similarity,
            harmless=harmless,
            base=base,
        )
        kept = Checkpoints(work, settings)
    trial = attack_and_score(
        model,
        how,
        data,
        asks,
        scorer,
        seed=seed,
        harmless=harmless,
        base=base,
        checkpoints=kept,
        reporter=reporter,
        saving=saving,
        patient=True,
    )
    if kept and not keep_work:
        kept.clear()
    return Curve(trial)
