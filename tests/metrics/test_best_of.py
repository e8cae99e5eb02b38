"""The best of n pictures, against every choice of n pictures."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift.errors import GiftError
from gift.metrics.concept import best_of, mean


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=9), st.data())
def test_it_is_the_share_of_choices_with_a_hit(scores: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(scores)))
    choices = [max(choice) for choice in combinations(scores, n)]
    assert best_of(scores, n) == pytest.approx(sum(choices) / len(choices), abs=1e-6)


def test_of_one_it_is_the_mean_and_of_all_a_certainty() -> None:
    scores = [1.0, 0.0, 0.0, 0.0]
    assert best_of(scores, 1) == mean(scores)
    assert best_of(scores, 4) == 1
    assert best_of([0.0] * 4, 4) == 0


@pytest.mark.parametrize("n", [0, 5])
def test_more_than_there_are_is_told(n: int) -> None:
    with pytest.raises(GiftError, match="from 4 scores"):
        best_of([0.0] * 4, n)
