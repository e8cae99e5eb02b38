"""What lies next to a concept: near by an independent measure, no part of it, and scored one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gift.bench.neighbours import NEAREST, neighbour_scores, neighbours
from gift.bench.workbench import Workbench
from gift.data.art import load_art
from gift.errors import GiftError
from gift.metrics.concept import ConceptScorer, read
from gift.metrics.recogniser import load_recogniser
from gift.models import load


@pytest.fixture
def bench(art_model: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes workbenches that judge likeness with the bundled recogniser."""
    monkeypatch.setattr("gift.bench.workbench.load_recogniser", load_recogniser)
    return lambda concept: Workbench.of(load(art_model), concept)


def drawn(name: str) -> torch.Tensor:
    """The mean embedding of an object's drawings, read one object at a time."""
    art = load_art()
    return read(load_recogniser(), torch.stack([art.picture(name, style) for style in art.styles])).embedding.mean(0)


@pytest.mark.parametrize(("concept", "kind"), [("mushroom", "object"), ("style:noto", "style"), ("category:food", "object")])
def test_neighbours_are_no_part_of_the_concept(bench: Any, concept: str, kind: str) -> None:
    made, art = bench(concept), load_art()
    found = neighbours(made)
    assert len({str(one) for one in found}) == NEAREST
    assert {one.kind for one in found} == {kind}
    for one in found:
        if kind == "style":
            assert one.name != "noto"
            assert one.name in art.trained_styles
        else:
            assert not made.concept.holds(art, one.name, "noto")


def test_neighbours_are_no_part_of_other_concepts_either(bench: Any) -> None:
    alone = neighbours(bench("mushroom"))
    others = [str(alone[0]), f"category:{load_art().object(alone[1].name).category}"]
    beside = neighbours(bench(["mushroom", *others]))
    assert len(beside) == NEAREST
    assert not {alone[0], alone[1]} & set(beside)
    styles = [f"style:{style}" for style in load_art().trained_styles]
    assert neighbours(bench(styles)) == []
    assert [str(one) for one in neighbours(bench(styles[1:]))] == styles[:1]


def test_the_nearest_comes_first_and_none_outside_is_nearer(bench: Any) -> None:
    found = [one.name for one in neighbours(bench("mushroom"))]
    likeness = {name: float(drawn(name) @ drawn("mushroom")) for name in (*found, "guitar", "bus", "castle", "violin")}
    values = [likeness[name] for name in found]
    assert values == sorted(values, reverse=True)
    assert all(value < values[-1] for name, value in likeness.items() if name not in found)


def test_each_neighbour_is_scored_by_its_own_scorer(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench("mushroom")
    asked: list[str] = []

    def score(self: ConceptScorer, images: torch.Tensor) -> list[float]:
        asked.append(str(self.concept))
        return [float(len(asked))] * len(images)

    monkeypatch.setattr(ConceptScorer, "__call__", score)
    found = neighbour_scores(made, made.model, 8)["scores"]
    names = [str(one) for one in neighbours(made)]
    assert asked == list(found) == names
    assert list(found.values()) == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]]


def test_a_model_with_words_of_its_own_has_no_neighbours(bench: Any) -> None:
    made = bench("mushroom")
    foreign = Workbench(made.model, made.concepts, None, 0)
    with pytest.raises(GiftError, match="neighbour_pictures: 0"):
        neighbours(foreign)
