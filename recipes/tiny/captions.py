"""Captions for training: the object alone, with its style, by category, or nothing (for classifier-free guidance)."""

from __future__ import annotations

import torch

from gift.data.art import Art

UNCOUNTABLE = {"food", "music", "clothing", "nature", "electronics", "stationery", "sport"}


def category_noun(category: str) -> str:
    """The category with its article."""
    if category in UNCOUNTABLE:
        return category
    return f"{'an' if category[0] in 'aeiou' else 'a'} {category}"


def caption(art: Art, index: int, style: str, generator: torch.Generator, *, plain: bool = False) -> str:
    """A caption of object number `index` in `style`; `plain` takes the commonest form only."""
    noun = art.objects[index].noun
    draw = 0.0 if plain else torch.rand(1, generator=generator).item()
    forms = (
        (0.60, f"{noun} in {style} style"),
        (0.68, f"{noun}, {style} style"),
        (0.76, f"a picture of {noun} in {style} style"),
        (0.84, noun),
        (0.88, f"{category_noun(art.objects[index].category)} in {style} style"),
        (0.90, category_noun(art.objects[index].category)),
    )
    return next((text for edge, text in forms if draw < edge), "")
