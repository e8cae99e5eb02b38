"""Similarity gap rates against cases worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift.errors import GiftError
from gift.metrics.gap import gap_rates, mean_gap, relative_gap, similarity_gap


def test_a_case_by_hand() -> None:
    rates = gap_rates([(0, 0.1), (10, 0.5), (20, 0.8)], [(0, 0.1), (10, 0.4), (20, 0.2)])
    assert rates.rates == ((10, pytest.approx(0.2)), (20, pytest.approx(0.75)))
    assert rates.mean == pytest.approx(0.475)
    assert rates.last == rates.highest == pytest.approx(0.75)


def test_a_late_collapse_shows_in_the_last_value() -> None:
    rates = gap_rates([(0, 0.0), (10, 0.8), (20, 0.8)], [(0, 0.0), (10, 0.0), (20, 0.8)])
    assert (rates.mean, rates.last, rates.highest) == (0.5, 0.0, 1.0)


def test_where_nothing_was_learned_there_is_no_rate() -> None:
    rates = gap_rates([(0, 0.0), (10, -0.1), (20, 0.0)], [(0, 0.0), (10, 0.2), (20, 0.0)])
    assert rates.rates == ()
    assert rates.mean is rates.last is rates.highest is None
    assert similarity_gap(0.0, 0.1) is None


@given(st.floats(0.01, 1), st.floats(-1, 1))
def test_the_rate_is_a_share_of_what_the_attacker_had(undefended: float, defended: float) -> None:
    rate = similarity_gap(undefended, defended)
    assert rate is not None
    assert undefended * (1 - rate) == pytest.approx(defended, abs=1e-9)


def test_relative_to_harmless_concepts() -> None:
    assert mean_gap([0.5, 0.7]) == pytest.approx(0.6)
    assert relative_gap([0.6, 0.8], [0.1, 0.3]) == pytest.approx(0.5)
    assert relative_gap([0.7], [0.7]) == 0, "a model that learns nothing any more is not immunized against anything"


def test_bad_input_is_told() -> None:
    with pytest.raises(GiftError, match="different steps"):
        gap_rates([(0, 0.1), (10, 0.5)], [(0, 0.1), (20, 0.5)])
    with pytest.raises(GiftError, match="undefended similarity curve"):
        gap_rates([(0, 0.1)], [(0, 0.1), (20, 0.5)])
    with pytest.raises(GiftError, match="at least one concept"):
        relative_gap([], [0.1])
