"""Prompts: what a defence draws, what an attacker is given and what is scored stay apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gift.data.art import Art, load_art
from gift.data.attack_pictures import attack_pictures
from gift.data.concept import Concept, parse_concept
from gift.data.prompts import (
    Ask,
    concept_asks,
    evaluation_asks,
    names,
    read_prompts,
    safe_asks,
    safe_evaluation_asks,
)
from gift.errors import GiftError

ART = load_art()
Maker = Callable[[Concept, Art | None, int, int], list[Ask]]
MAKERS: dict[str, Maker] = {
    "concept": concept_asks,
    "safe": safe_asks,
    "evaluation": evaluation_asks,
    "safe evaluation": safe_evaluation_asks,
    "safe evaluation, again": partial(safe_evaluation_asks, again=True),
}
DEFENCE, SCORING = ("concept", "safe"), ("evaluation", "safe evaluation")
CONCEPTS = [parse_concept(text, ART) for text in ("mushroom", "french fries", "style:openmoji", "category:food")]
FREE = [Concept("text", "a photo of a cat"), Concept("style", "Van Gogh"), Concept("text", "Dogs"), Concept("text", "a car")]
CASES = [pytest.param(c, ART, id=str(c)) for c in CONCEPTS] + [pytest.param(c, None, id=f"free {c}") for c in FREE]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(("concept", "art"), CASES)
@pytest.mark.parametrize("n", [0, 1, 7, 500])
def test_the_count_is_as_asked_and_seeds_differ(make: Maker, concept: Concept, art: Art | None, n: int) -> None:
    asks = make(concept, art, n, 3)
    assert len(asks) == n
    assert len({a.seed for a in asks}) == n
    assert all(a.prompt.strip() for a in asks)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(("concept", "art"), CASES)
def test_the_same_seed_gives_the_same_prompts_and_another_seed_others(make: Maker, concept: Concept, art: Art | None) -> None:
    assert make(concept, art, 40, 5) == make(concept, art, 40, 5)
    assert make(concept, art, 40, 5) != make(concept, art, 40, 6)


@given(first=st.integers(0, 2**31 - 1), second=st.integers(0, 2**31 - 1))
@example(0, 100)
@example(100, 0)
@example(0, 50)
@example(50, 0)
@example(2**31 - 1, 0)
def test_no_seed_is_used_both_for_drawing_and_for_scoring(first: int, second: int) -> None:
    used = [
        {a.seed for name in group for a in MAKERS[name](CONCEPTS[0], ART, 200, s)}
        for group, s in ((DEFENCE, first), (SCORING, second))
    ]
    assert not used[0] & used[1]
    assert all(0 <= seed < 2**63 for seed in used[0] | used[1])


@given(first=st.integers(0, 2**31 - 1), second=st.integers(0, 2**31 - 1), name=st.sampled_from([*DEFENCE, *SCORING]))
@example(0, 0, "safe evaluation")
@example(0, 100, "safe")
def test_what_is_drawn_again_has_the_prompts_and_no_seed_of_what_was_drawn(first: int, second: int, name: str) -> None:
    again = MAKERS["safe evaluation, again"](CONCEPTS[0], ART, 200, first)
    assert [replace(a, seed=0) for a in again] == [replace(a, seed=0) for a in safe_evaluation_asks(CONCEPTS[0], ART, 200, first)]
    assert not {a.seed for a in again} & {a.seed for a in MAKERS[name](CONCEPTS[0], ART, 200, second)}


@pytest.mark.parametrize(("left", "right"), [DEFENCE, SCORING])
@pytest.mark.parametrize("seed", [0, 49, 50, 99, 100, 12345])
def test_the_concept_and_the_safe_set_share_no_seed(left: str, right: str, seed: int) -> None:
    for other in (0, 50, 100):
        assert not {a.seed for a in MAKERS[left](CONCEPTS[0], ART, 200, seed)} & {
            a.seed for a in MAKERS[right](CONCEPTS[0], ART, 200, other)
        }


@pytest.mark.parametrize(("concept", "art"), CASES)
def test_no_wording_is_used_both_for_drawing_and_for_scoring(concept: Concept, art: Art | None) -> None:
    drawn = {a.prompt for name in DEFENCE for a in MAKERS[name](concept, art, 400, 0)}
    scored = {a.prompt for name in SCORING for a in MAKERS[name](concept, art, 400, 0)}
    assert not drawn & scored


@pytest.mark.parametrize("concept", CONCEPTS, ids=str)
def test_no_attackers_caption_is_scored(concept: Concept) -> None:
    captions = set(attack_pictures(concept, ART, 60, 0)[1])
    assert not captions & {a.prompt for name in SCORING for a in MAKERS[name](concept, ART, 400, 0)}


@pytest.mark.parametrize("concept", CONCEPTS, ids=str)
@pytest.mark.parametrize("name", ["safe", "safe evaluation"])
def test_safe_prompts_never_show_the_concept(concept: Concept, name: str) -> None:
    for ask in MAKERS[name](concept, ART, 2500, 1):
        assert ask.name is not None
        assert ask.style is not None
        assert not concept.holds(ART, ask.name, ask.style)
        assert ART.object(ask.name).noun in ask.prompt
        assert ask.style in ask.prompt


@pytest.mark.parametrize("concept", FREE, ids=str)
@pytest.mark.parametrize("name", ["safe", "safe evaluation"])
def test_safe_free_text_never_names_the_concept(concept: Concept, name: str) -> None:
    asks = MAKERS[name](concept, None, 100, 1)
    assert not [a.prompt for a in asks if names(concept, a.prompt)]


@pytest.mark.parametrize("concept", CONCEPTS, ids=str)
@pytest.mark.parametrize("name", ["concept", "evaluation"])
def test_concept_prompts_always_show_the_concept(concept: Concept, name: str) -> None:
    for ask in MAKERS[name](concept, ART, 300, 1):
        assert ask.name is not None
        assert concept.holds(ART, ask.name, ask.style or "")
        assert ART.object(ask.name).noun in ask.prompt


@pytest.mark.parametrize(("concept", "art"), CASES)
def test_what_is_measured_of_the_rest_is_not_what_was_kept(concept: Concept, art: Art | None) -> None:
    def shown(ask: Ask) -> object:
        return (ask.name, ask.style) if art else ask.prompt.removeprefix("a picture of ")

    kept = {shown(a) for a in safe_asks(concept, art, 3000, 0)}
    measured = {shown(a) for a in safe_evaluation_asks(concept, art, 3000, 1)}
    assert not kept & measured
    assert min(len(kept), len(measured)) > 0.3 * (len(kept) + len(measured))


@pytest.mark.parametrize("make", [concept_asks, evaluation_asks, safe_asks, safe_evaluation_asks])
def test_every_pair_is_used_before_any_is_used_again(make: Maker) -> None:
    counts = Counter((a.name, a.style) for a in make(parse_concept("style:noto", ART), ART, len(ART.objects), 0))
    assert max(counts.values()) == 1


def test_a_concept_of_common_words_is_an_error_not_an_endless_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tmp_path / "few.txt"
    few.write_text("a red car\na blue car\n")
    monkeypatch.setattr("gift.data.prompts.GENERIC_SAFE", few)
    with pytest.raises(GiftError, match="--safe-images"):
        safe_asks(Concept("text", "car"), None, 4, 0)


@pytest.mark.parametrize(
    ("name", "prompt", "found"),
    [("a cat", "a black cat asleep", True), ("Cats", "A CAT.", True), ("a cat", "a dog", False), ("child", "a child's kite", True)],
)
def test_names(name: str, prompt: str, found: bool) -> None:
    assert names(Concept("text", name), prompt) is found


def test_read_prompts_passes_over_blanks_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "Ünï code.txt"
    file.write_text("\ufeff# comment\n\n a fox \nthe sea\n", encoding="utf-8")
    assert read_prompts(file) == ["a fox", "the sea"]


@pytest.mark.parametrize("content", [None, b"", b"\n# only\n", b"\xff\xfe\x00a"], ids=["missing", "empty", "comments", "binary"])
def test_prompts_that_cannot_be_used_are_an_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(GiftError, match="prompts"):
        read_prompts(file)
