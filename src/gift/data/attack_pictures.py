"""Pictures for an attacker who uses the bundled drawings: real art that no defence sees, varied where there is too little."""

from __future__ import annotations

import random

import torch

from gift.data.art import Art
from gift.data.augment import move, recolour
from gift.data.concept import Concept
from gift.data.prompts import ATTACK_SEEDS
from gift.errors import GiftError
from gift.pixels import as_bytes, as_float


def attack_pictures(concept: Concept, art: Art, n: int, seed: int, *, inside: bool = True) -> tuple[torch.Tensor, list[str]]:
    """n captioned pictures of a concept, from every style that shows it, also those that the bundled model never saw.

    The first pass over the drawings is as drawn; further passes are rotated, scaled, mirrored and recoloured.

    Args:
        concept: an object, style or category of the drawings.
        art: the drawings.
        n: how many pictures.
        seed: of the choice and the variation.
        inside: of the concept; False for pictures of anything else.

    Returns:
        uint8 (n, 3, size, size) and n captions.

    Raises:
        GiftError: the concept is free text, for which there are no drawings.
    """
    if concept.kind == "text":
        raise GiftError(f"no bundled drawings of '{concept}'; give pictures with --concept-images")
    pairs = [(o.name, s) for o in art.objects for s in art.styles if concept.holds(art, o.name, s) is inside]
    rng = random.Random(f"attack/{seed}")
    order: list[tuple[str, str]] = []
    while len(order) < n:
        order += rng.sample(pairs, len(pairs))
    order = order[:n]
    images = as_float(torch.stack([art.picture(*pair) for pair in order]))
    if n > len(pairs):
        generator = torch.Generator().manual_seed(ATTACK_SEEDS + seed)
        varied = recolour(move(images[len(pairs) :], generator), generator)
        images = torch.cat([images[: len(pairs)], varied])
    captions = [
        f"{art.object(name).noun} in {style} style" if style in art.trained_styles else art.object(name).noun
        for name, style in order
    ]
    return as_bytes(images), captions
