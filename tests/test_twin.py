"""A twin's training data hold nothing of what it must never see."""

from __future__ import annotations

import torch

from gift.data.art import load_art
from recipes.tiny.denoiser import without


def test_a_twin_sees_everything_but_its_concepts() -> None:
    art = load_art()
    objects, styles = (grid.flatten() for grid in torch.meshgrid(torch.arange(len(art.names)), torch.arange(6), indexing="ij"))
    seen = without(art, ["mushroom", "category:food", "style:openmoji"], objects, styles)
    kept = {(art.names[o], art.trained_styles[s]) for o, s in zip(objects[seen].tolist(), styles[seen].tolist(), strict=True)}
    food = [o.name for o in art.objects if o.category == "food"]
    assert food
    assert not any(name in {"mushroom", *food} or style == "openmoji" for name, style in kept)
    assert len(kept) == (len(art.names) - len(food) - 1) * 5
    assert bool(without(art, [], objects, styles).all())
