"""Concept names: whatever is typed becomes a concept or one clear error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gift.data.art import Art, load_art
from gift.data.concept import Concept, parse_concept, speaks_art
from gift.errors import GiftError
from gift.models.sd import StableDiffusion

ART = load_art()
PIECES = st.sampled_from(["style", "category", "object", "text", ":", " ", "", "noto", "food", "mushroom", "\n", "\0", "é"])
TYPED = st.text() | st.lists(PIECES, max_size=6).map("".join)


@pytest.mark.parametrize("art", [ART, None], ids=["art", "free text"])
@given(text=TYPED)
@example("category:style:noto")
@example("category:category: x")
@example(": x")
@example("category:" * 3000)
def test_anything_typed_is_a_concept_or_a_clear_error(art: Art | None, text: str) -> None:
    try:
        concept = parse_concept(text, art)
    except GiftError:
        return
    assert concept.name == concept.name.strip() != ""
    assert parse_concept(str(concept), art) == concept


def test_every_known_concept_round_trips() -> None:
    known = {"object": ART.names, "style": list(ART.trained_styles), "category": ART.categories}
    for concept in (Concept(kind, name) for kind, found in known.items() for name in found):  # type: ignore[arg-type]
        assert parse_concept(str(concept), ART) == concept


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("mushrom", "mushroom"),
        ("Mushroom", "mushroom"),
        ("style:openmojo", "openmoji"),
        ("category:foods", "food"),
        ("zzzzzz", "known:"),
        ("style:zzzzzz", "noto"),
        ("styl:noto", "style:NAME"),
        ("", "empty"),
        ("  \n ", "empty"),
        ("style:", "empty"),
    ],
)
def test_an_unknown_name_is_answered_with_a_suggestion(typed: str, hint: str) -> None:
    with pytest.raises(GiftError, match=hint):
        parse_concept(typed, ART)


@pytest.mark.parametrize("style", sorted(set(ART.styles) - set(ART.trained_styles)))
def test_styles_that_the_model_never_saw_are_no_concepts(style: str) -> None:
    with pytest.raises(GiftError, match=f"no style '{style}'"):
        parse_concept(f"style:{style}", ART)


@pytest.mark.parametrize(
    ("typed", "concept"),
    [
        ("Van Gogh", Concept("text", "Van Gogh")),
        ("  a \t red\n car ", Concept("text", "a red car")),
        ("style:Van Gogh", Concept("style", "Van Gogh")),
        ("category:vehicles", Concept("text", "vehicles")),
        ("ratio 3:4", Concept("text", "ratio 3:4")),
    ],
)
def test_free_text_for_models_with_their_own_vocabulary(typed: str, concept: Concept) -> None:
    assert parse_concept(typed, None) == concept


@pytest.mark.parametrize(
    ("concept", "name", "style", "held"),
    [
        (Concept("object", "mushroom"), "mushroom", "noto", True),
        (Concept("object", "mushroom"), "ant", "noto", False),
        (Concept("style", "noto"), "ant", "noto", True),
        (Concept("style", "noto"), "ant", "openmoji", False),
        (Concept("category", "animal"), "ant", "noto", True),
        (Concept("category", "food"), "ant", "noto", False),
    ],
    ids=str,
)
def test_holds(concept: Concept, name: str, style: str, held: bool) -> None:
    assert concept.holds(ART, name, style) is held


class _Vocabulary:
    def __init__(self, words: list[str]) -> None:
        self.words = words

    def get_vocab(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}


@pytest.mark.parametrize(
    ("tokenizer", "speaks"),
    [
        (_Vocabulary([f"{s}</w>" for s in ART.trained_styles]), True),
        (_Vocabulary([f"{s}</w>" for s in ART.trained_styles[1:]]), False),
        (_Vocabulary([f"{s}</w>" for s in ART.trained_styles] + [str(i) for i in range(10_000)]), False),
        (None, False),
    ],
    ids=["all styles", "one missing", "a large vocabulary", "no tokenizer"],
)
def test_speaks_art(tokenizer: Any, speaks: bool) -> None:
    assert speaks_art(tokenizer) is speaks


def test_a_random_model_does_not_speak_art(random_model: StableDiffusion) -> None:
    assert not speaks_art(random_model.pipeline.tokenizer)
