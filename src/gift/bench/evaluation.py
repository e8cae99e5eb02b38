"""One model beside its original: the concept's score and the price of a defence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gift.bench.price import price_of
from gift.bench.trial import score_model
from gift.bench.workbench import Workbench
from gift.data.concept import speaks_art
from gift.errors import GiftError
from gift.metrics.concept import mean
from gift.metrics.intervals import bootstrap
from gift.models import DenoisingModel, load
from gift.models.lora import open_lora


def evaluate_model(
    model: DenoisingModel | str,
    concept: str,
    *,
    original: DenoisingModel | str = "tiny",
    lora: Path | None = None,
    pictures: int = 72,
    safe_pictures: int = 120,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores a model's concept and its safe prompts.

    Args:
        model: the model, or what `load` takes.
        concept: what to look for.
        original: the model before the defence; its pictures of the same prompts and seeds are the reference.
        lora: a folder with LoRA files to load on the model.
        pictures: of the concept.
        safe_pictures: of other prompts.
        seed: of the prompts and pictures.

    Returns:
        concept_score, safe_accuracy (each with an `_interval`, 95 % bootstrap over pictures), fid, kid, flags, and the scores.

    Raises:
        GiftError: an unknown model or concept, or one that nothing can recognise.
    """
    opened = model if isinstance(model, DenoisingModel) else load(model)
    bench = Workbench.of(opened, concept, seed)
    scorer = bench.scorer
    if lora:
        open_lora(opened, lora)
    found = score_model(opened, bench.asks(pictures), scorer)
    asks = bench.safe_evaluation(safe_pictures)
    words, seeds = [a.prompt for a in asks], [a.seed for a in asks]
    safe = opened.generate(words, seeds)
    base = original if isinstance(original, DenoisingModel) else load(original)
    if not speaks_art(base.pipeline.tokenizer) or base.image_size != opened.image_size:
        raise GiftError(
            f"{base.source} is not the original of {opened.source}: its vocabulary or picture size differs; give --original"
        )
    reference = base.generate(words, seeds)
    price = price_of(bench, asks, safe, reference)
    return {
        "model": opened.source,
        "concept": str(bench.concept),
        "seed": seed,
        "concept_score": found.score,
        "concept_score_interval": list(bootstrap(found.scores)),
        "safe_accuracy": mean(price["scores"]),
        "safe_accuracy_interval": list(bootstrap(price["scores"])),
        "fid": price["fid"],
        "kid": price["kid"],
        "flags": [price["collapse"]] if price["collapse"] else [],
        "concept_scores": found.scores,
        "safe_scores": price["scores"],
    }
