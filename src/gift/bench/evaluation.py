"""One model beside its original: the concept's score and the price of a defence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gift.bench.neighbours import neighbour_damage, neighbour_scores, neighbours
from gift.bench.price import price_of, redrawn_of, shift_of
from gift.bench.trial import score_model
from gift.bench.workbench import Folders, Workbench, folders_of
from gift.data.concept import speaks_art
from gift.data.mention import reworded
from gift.errors import GiftError
from gift.metrics.collapse import blank
from gift.metrics.concept import mean
from gift.metrics.embedders import STAND_IN, load_embedder
from gift.metrics.intervals import bootstrap
from gift.models import DenoisingModel, load
from gift.models.lora import open_lora
from gift.models.placeholder import open_placeholder


def evaluate_model(
    model: DenoisingModel | str,
    concept: str | Sequence[str],
    *,
    original: DenoisingModel | str = "tiny",
    lora: Path | None = None,
    embeds: Path | None = None,
    pictures: int = 72,
    safe_pictures: int = 120,
    neighbour_pictures: int = 24,
    similarity: Sequence[str] = (STAND_IN,),
    concept_images: Folders = None,
    real_images: Path | None = None,
    skip_bad_images: bool = False,
    redraw: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores a model's concept and its safe prompts.

    Args:
        model: the model, or what `load` takes.
        concept: what to look for; several concepts share one price, of prompts that name none of them.
        original: the model before the defence; its pictures of the same prompts and seeds are the reference, with the same sampler
            steps and guidance.
        lora: a folder with LoRA files to load on the model.
        embeds: a Textual Inversion file to load on it; the concept is then asked for by its word.
        pictures: of the concept.
        safe_pictures: of other prompts.
        neighbour_pictures: of the concept's nearest neighbours together; 0 leaves them out.
        similarity: embedders that compare pictures of other prompts with the original's.
        concept_images: a folder of the concept's pictures, for several concepts a list, one each: the score is then the mean
            likeness to them by the first embedder. Models with a vocabulary of their own can only be scored so.
        real_images: a folder of real pictures of anything but the concept, to which both models' pictures of other prompts are
            compared; for models that know the bundled drawings those of the same prompts by default.
        skip_bad_images: go on without pictures that can't be read, rather than stop.
        redraw: whether the original draws the safe prompts a second time from other noise, to tell how far noise alone moves them.
        seed: of the prompts and pictures.

    Returns:
        concept_score, safe_accuracy (each with an `_interval`, 95 % bootstrap over pictures), fid, kid, real (fid and kid from real
        pictures, and the original's; None without any), redrawn (fid and kid of the original's pictures from other noise; None
        without `redraw`), diversity, neighbours, similarity, flags, and the scores; and `concepts`, a row for each with its name,
        score, the original's score, and neighbours. What stands outside the rows about a concept is about the first.

    Raises:
        GiftError: an unknown model, concept or embedder, a concept that nothing can recognise, folders too many or too few, models
            that are drawn from differently, or several concepts with a Textual Inversion file, which is about one.
    """
    compared = [load_embedder(which) for which in similarity]
    opened = model if isinstance(model, DenoisingModel) else load(model)
    how = opened.sampling
    base = original if isinstance(original, DenoisingModel) else load(original, sampler_steps=how.steps, guidance=how.guidance)
    if base.sampling != how:
        raise GiftError(f"{base.source} is drawn with {base.sampling}, {opened.source} with {how}; open both with the same")
    bench = Workbench.of(opened, concept, seed, skip_bad_images=skip_bad_images)
    if embeds and len(bench.concepts) > 1:
        raise GiftError(f"--embeds is about one concept; evaluate {len(bench.concepts)} concepts one by one")
    benches = [replace(bench, concepts=(each,)) for each in bench.concepts]
    folders = folders_of(len(benches), concept_images)
    scorers = [
        each.judge(similarity[0], 2, folder) if folder and similarity else each.scorer
        for each, folder in zip(benches, folders, strict=True)
    ]
    if lora:
        open_lora(opened, lora)
    word = open_placeholder(opened, embeds) if embeds else None
    asks = bench.safe_evaluation(safe_pictures)
    real = bench.drawings(asks, real_images)
    words, seeds = [a.prompt for a in asks], [a.seed for a in asks]
    if speaks_art(base.tokenizers["text_encoder"]) is (bench.art is None) or base.image_size != opened.image_size:
        raise GiftError(
            f"{base.source} is not the original of {opened.source}: its vocabulary or picture size differs; give --original"
        )
    safe, reference = opened.generate(words, seeds), base.generate(words, seeds)
    price = price_of(bench, asks, safe, reference, real)
    other = bench.safe_evaluation(safe_pictures, again=True) if redraw else []
    redrawn = redrawn_of(bench, reference, base.generate([a.prompt for a in other], [a.seed for a in other])) if redraw else None
    rows, flags = [], blank(reference, "of the original")
    for each, scorer, folder in zip(benches, scorers, folders, strict=True):
        plain = each.asks(pictures)
        own = [replace(a, prompt=reworded(a.prompt, a.mention, lambda _: word)) for a in plain] if word else plain
        found, before = score_model(opened, own, scorer), score_model(base, plain, scorer)
        flags += blank(found.images, f"of '{each.concept}'")
        others = [concept for concept in bench.concepts if concept != each.concept]
        beside = replace(bench, concepts=(each.concept, *others))
        near = _neighbours(beside, opened, base, neighbour_pictures) if neighbour_pictures and bench.art else None
        rows.append(
            {
                "concept": str(each.concept),
                "scored_by": "likeness to the concept's pictures" if folder and similarity else "recogniser",
                "concept_score": found.score,
                "concept_score_interval": list(bootstrap(found.scores)),
                "original_score": before.score,
                "neighbours": near,
                "concept_scores": found.scores,
            }
        )
    return {
        "model": opened.source,
        "seed": seed,
        **rows[0],
        "safe_accuracy": mean(price["scores"]) if price["scores"] else None,
        "safe_accuracy_interval": list(bootstrap(price["scores"])) if price["scores"] else None,
        "fid": price["fid"],
        "kid": price["kid"],
        "real": price["real"],
        "redrawn": redrawn,
        "diversity": price["diversity"],
        "similarity": {by.key: shift_of(by, safe, reference, real) for by in compared},
        "flags": [*([price["collapse"]] if price["collapse"] else []), *flags],
        "concepts": rows,
        "safe_scores": price["scores"],
    }


def _neighbours(bench: Workbench, model: DenoisingModel, original: DenoisingModel, pictures: int) -> dict[str, Any] | None:
    """How well both models draw the concept's neighbours; None where the other concepts leave none."""
    if not neighbours(bench):
        return None
    return neighbour_damage(*(neighbour_scores(bench, each, pictures)["scores"] for each in (model, original)))
