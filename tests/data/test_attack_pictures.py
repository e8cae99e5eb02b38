"""The attacker's drawings: real art, every style, varied only where there is too little of it."""

from __future__ import annotations

import pytest
import torch

from gift.data.art import load_art
from gift.data.attack_pictures import attack_pictures
from gift.data.concept import Concept, parse_concept
from gift.data.images import constant_pictures
from gift.errors import GiftError

ART = load_art()
CONCEPTS = [parse_concept(text, ART) for text in ("mushroom", "french fries", "style:openmoji", "category:food")]


def drawings(concept: Concept) -> dict[bytes, tuple[str, str]]:
    """Every drawing that shows the concept, by its bytes."""
    pairs = [(o.name, s) for o in ART.objects for s in ART.styles if concept.holds(ART, o.name, s)]
    return {ART.picture(*pair).numpy().tobytes(): pair for pair in pairs}


@pytest.mark.parametrize("concept", CONCEPTS, ids=str)
@pytest.mark.parametrize("n", [1, 8, 48])
def test_counts_shapes_and_captions(concept: Concept, n: int) -> None:
    images, captions = attack_pictures(concept, ART, n, 0)
    assert images.shape == (n, 3, ART.size, ART.size)
    assert images.dtype == torch.uint8
    assert len(captions) == n
    assert not constant_pictures(images).any()


@pytest.mark.parametrize("concept", CONCEPTS, ids=str)
def test_the_first_pass_is_as_drawn_without_repeats_and_captions_match(concept: Concept) -> None:
    known = drawings(concept)
    n = min(len(known), 100)
    images, captions = attack_pictures(concept, ART, n, 0)
    found = [known[image.numpy().tobytes()] for image in images]
    assert len(set(found)) == n
    for (name, style), caption in zip(found, captions, strict=True):
        noun = ART.object(name).noun
        assert caption == (f"{noun} in {style} style" if style in ART.trained_styles else noun)


@pytest.mark.parametrize("concept", [c for c in CONCEPTS if c.kind != "style"], ids=str)
def test_styles_that_the_model_never_saw_are_among_them(concept: Concept) -> None:
    known = drawings(concept)
    images, _ = attack_pictures(concept, ART, len(known), 3)
    styles = {known[image.numpy().tobytes()][1] for image in images}
    assert styles == set(ART.styles)


def test_further_passes_are_varied_and_all_different() -> None:
    concept = CONCEPTS[0]
    first = len(drawings(concept))
    images, captions = attack_pictures(concept, ART, 6 * first, 0)
    assert torch.equal(images[:first], attack_pictures(concept, ART, first, 0)[0])
    assert not [image for image in images[first:] if image.numpy().tobytes() in drawings(concept)]
    assert len({image.numpy().tobytes() for image in images}) == len(images)
    assert all("mushroom" in caption for caption in captions)


@pytest.mark.parametrize("concept", CONCEPTS, ids=str)
def test_the_same_seed_gives_the_same_pictures_and_another_seed_others(concept: Concept) -> None:
    runs = [attack_pictures(concept, ART, 24, seed) for seed in (5, 5, 6)]
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not torch.equal(runs[0][0], runs[2][0])


def test_free_text_has_no_drawings() -> None:
    with pytest.raises(GiftError, match="--concept-images"):
        attack_pictures(Concept("text", "a red car"), ART, 4, 0)
