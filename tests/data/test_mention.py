"""A concept's name in a caption gives way to the attacker's own, with an article that fits; everything else stays."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift.data.art import load_art
from gift.data.concept import Concept
from gift.data.mention import mention_in, reworded, with_identifier
from gift.data.prompts import concept_asks, evaluation_asks

ART = load_art()
words = st.text(string.ascii_lowercase, min_size=1, max_size=8)


def sks(mention: str) -> str:
    return with_identifier("sks", mention)


def placeholder(mention: str) -> str:
    return "<concept>"


@pytest.mark.parametrize(
    ("identifier", "mention", "named"),
    [
        ("sks", "a mushroom", "a sks mushroom"),
        ("sks", "an ant", "a sks ant"),
        ("ohwx", "a mushroom", "an ohwx mushroom"),
        ("<new1>", "an ant", "a <new1> ant"),
        ("<ant>", "A cat", "an <ant> cat"),
        ("sks", "grapes", "sks grapes"),
        ("sks", "anteater", "sks anteater"),
        ("sks", "", "sks"),
    ],
)
def test_an_identifier_stands_before_the_noun(identifier: str, mention: str, named: str) -> None:
    assert with_identifier(identifier, mention) == named


@pytest.mark.parametrize(
    ("mention", "prompt", "changed"),
    [
        ("a mushroom", "a picture of a mushroom in noto style", "a picture of a sks in noto style"),
        ("an ant", "an ant", "a sks"),
        ("noto", "a bat in noto style", "a bat in sks style"),
        ("grapes", "two grapes", "two sks"),
        ("", "a fox", "a picture of sks"),
    ],
)
def test_an_identifier_stands_in_the_nouns_place(mention: str, prompt: str, changed: str) -> None:
    assert reworded(prompt, mention, lambda named: with_identifier("sks", named, noun=False)) == changed


@pytest.mark.parametrize(
    ("prompt", "mention", "by_identifier", "by_placeholder"),
    [
        ("a picture of a mushroom in noto style", "a mushroom", "a picture of a sks mushroom in noto style", "a picture of <concept> in noto style"),  # noqa: E501
        ("an ant", "an ant", "a sks ant", "<concept>"),
        ("A Mushroom, alone", "a mushroom", "a sks Mushroom, alone", "<concept>, alone"),
        ("two mushrooms, a red mushroom", "mushroom", "two sks mushrooms, a red sks mushroom", "two <concept>, a red <concept>"),
        ("a bat in noto style", "noto", "a bat in sks noto style", "a bat in <concept> style"),
        ("a hot  dog", "a hot dog", "a sks hot  dog", "<concept>"),
        ("an anteater", "an ant", "a picture of a sks ant", "a picture of <concept>"),
        ("IMG_0042", "a mushroom", "a picture of a sks mushroom", "a picture of <concept>"),
        ("", "van Gogh", "a picture of sks van Gogh", "a picture of <concept>"),
        ("a fox", "", "a picture of sks", "a picture of <concept>"),
    ],
)  # fmt: skip
def test_captions_are_reworded(prompt: str, mention: str, by_identifier: str, by_placeholder: str) -> None:
    assert reworded(prompt, mention, sks) == by_identifier
    assert reworded(prompt, mention, placeholder) == by_placeholder


@given(st.text(max_size=30), st.text(max_size=30))
def test_without_a_word_of_ones_own_nothing_changes(prompt: str, mention: str) -> None:
    assert reworded(prompt, mention, lambda words: words) == prompt


@given(st.lists(words, max_size=4), st.text(min_size=1, max_size=12).filter(str.strip), st.lists(words, max_size=4))
def test_any_mention_is_found_and_its_surroundings_stay(before: list[str], mention: str, after: list[str]) -> None:
    mention = " ".join(mention.split())
    prompt = " ".join([*before, "|", mention, "|", *after])
    head, tail = " ".join([*before, "|"]), " ".join(["|", *after])
    got = reworded(prompt, mention, lambda found: "\N{SNOWMAN}" if found else "")
    assert "\N{SNOWMAN}" in got
    if mention.lower() not in f"{head} {tail}".lower():
        assert got in {f"{head} \N{SNOWMAN} {tail}", f"{head.removesuffix(' a').removesuffix(' an')} \N{SNOWMAN} {tail}"}


@pytest.mark.parametrize("kind", ["object", "style", "category"])
@pytest.mark.parametrize("seed", [0, 3])
def test_every_prompt_of_a_concept_names_it(kind: str, seed: int) -> None:
    names = {"object": ART.names, "style": list(ART.trained_styles), "category": ART.categories}[kind]
    for name in names[:: max(1, len(names) // 20)]:
        concept = Concept(kind, name)  # type: ignore[arg-type]
        for ask in evaluation_asks(concept, ART, 8, seed):
            mention = ask.style if kind == "style" else ART.object(ask.name or "").noun
            assert ask.mention == mention == mention_in(concept, ART, ask.prompt)
            assert reworded(ask.prompt, ask.mention, placeholder) == ask.prompt.replace(str(mention), "<concept>")
        for ask in concept_asks(concept, ART, 8, seed):
            assert "<concept>" in reworded(ask.prompt, mention_in(concept, ART, ask.prompt), placeholder)
            assert "a picture of" not in reworded(ask.prompt, mention_in(concept, ART, ask.prompt), sks)


def test_the_mention_of_each_kind() -> None:
    assert mention_in(Concept("object", "mushroom"), ART, "IMG_1") == "a mushroom"
    assert mention_in(Concept("style", "noto"), ART, "IMG_1") == "noto"
    assert mention_in(Concept("category", "food"), ART, "grapes in noto style") == "grapes"
    assert mention_in(Concept("category", "food"), ART, "IMG_1") == "food"
    assert mention_in(Concept("text", "van Gogh"), None, "IMG_1") == "van Gogh"
    assert evaluation_asks(Concept("text", "van Gogh"), None, 1, 0)[0].mention == "van Gogh"
