"""What lies next to a concept, and what a defence does to it before any attack."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from gift.bench.trial import score_model
from gift.bench.workbench import Workbench
from gift.data.art import Art, load_art
from gift.data.concept import Concept
from gift.data.prompts import evaluation_asks
from gift.errors import GiftError
from gift.metrics.concept import ConceptScorer, mean, read
from gift.metrics.recogniser import Recogniser
from gift.models import DenoisingModel

NEAREST = 4
"""How many neighbours are looked at (choice)."""


@lru_cache(maxsize=2)
def read_drawings(recogniser: Recogniser) -> torch.Tensor:
    """The embedding of every drawing, (styles, objects, width): read once, however many concepts are laid out."""
    art = load_art()
    return torch.stack([read(recogniser, art.atlas(style)).embedding for style in art.styles])


def embeddings(recogniser: Recogniser) -> torch.Tensor:
    """The same, those that the recogniser came with where it did: every process would spend seconds on them."""
    return read_drawings(recogniser) if recogniser.drawings is None else recogniser.drawings


def likeness_of_objects(concept: Concept, art: Art, recogniser: Recogniser) -> dict[str, float]:
    """How much each object looks like a concept: the dot product of its mean embedding with the mean of the concept's drawings."""
    stack = embeddings(recogniser)
    pairs = [(o, s) for o in range(len(art.names)) for s in range(len(art.styles))]
    own = [stack[s, o] for o, s in pairs if concept.holds(art, art.names[o], art.styles[s])]
    values = stack.mean(0) @ torch.stack(own).mean(0)
    return dict(zip(art.names, values.tolist(), strict=True))


def _likeness_of_styles(concept: Concept, art: Art, recogniser: Recogniser) -> dict[str, float]:
    """The same for the styles that a model can be asked for."""
    means = embeddings(recogniser).mean(1)
    values = means @ means[art.styles.index(concept.name)]
    return {style: float(values[art.styles.index(style)]) for style in art.trained_styles}


def neighbours(bench: Workbench, n: int = NEAREST) -> list[Concept]:
    """The n concepts most like the bench's first that are no part of any of its concepts, nearest first; fewer if none are left.

    Of a style they are other styles, else objects. Likeness is by the recogniser's embedding of the drawings.

    Raises:
        GiftError: the model has no drawings of them.
    """
    concept, art = bench.concept, bench.art
    if art is None:
        raise GiftError(f"no bundled drawings lie beside '{concept}' for this model; set neighbour_pictures: 0")
    if concept.kind == "style":
        styles = _likeness_of_styles(concept, art, bench.recogniser)
        near = [Concept("style", name) for name in sorted(styles, key=lambda name: -styles[name])]
        return [style for style in near if style not in bench.concepts][:n]
    objects = likeness_of_objects(concept, art, bench.recogniser)
    names = sorted(objects, key=lambda name: -objects[name])
    return [Concept("object", name) for name in names if not any(one.holds(art, name, "") for one in bench.concepts)][:n]


def neighbour_scores(bench: Workbench, model: DenoisingModel, pictures: int) -> dict[str, Any]:
    """The concept score of each neighbour.

    Args:
        bench: the concept's workbench.
        model: whose weights draw.
        pictures: of all neighbours together; each has at least one.

    Returns:
        scores: for each neighbour its pictures' scores.
    """
    assert bench.art is not None  # `neighbours` would have refused
    near = neighbours(bench)
    share = -(-pictures // len(near))
    asks = [evaluation_asks(concept, bench.art, share, bench.seed) for concept in near]
    scorers = [ConceptScorer(concept, bench.art, bench.recogniser) for concept in near]

    def scores(images: torch.Tensor) -> list[float]:
        return [score for scorer, part in zip(scorers, images.split(share), strict=True) for score in scorer(part)]

    found = score_model(model, [ask for part in asks for ask in part], scores).scores
    return {"scores": {str(concept): found[i * share : (i + 1) * share] for i, concept in enumerate(near)}}


def neighbour_damage(scores: dict[str, list[float]], original: dict[str, list[float]]) -> dict[str, Any]:
    """Mean scores of all neighbours, as one model draws them and as the original does.

    Args:
        scores: by neighbour, as `neighbour_scores` gives them.
        original: the same of the original model.

    Returns:
        names, score, original_score.
    """
    here, there = (mean([score for part in scored.values() for score in part]) for scored in (scores, original))
    return {"names": list(scores), "score": here, "original_score": there}
