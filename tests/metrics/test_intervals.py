"""The bootstrap against exact enumeration, normal theory and its own invariances."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift.errors import GiftError, NonFiniteError
from gift.metrics import intervals
from gift.metrics.intervals import bootstrap


def test_three_values_against_all_27_resamples() -> None:
    values = [0.0, 0.3, 1.0]
    exact = np.sort([np.mean(pick) for pick in itertools.product(values, repeat=3)])
    # Of 27 equally likely means the 10th and 90th percentiles fall on the 3rd and the 25th.
    low, high = bootstrap(values, confidence=0.8, resamples=20_000)
    assert low == pytest.approx(exact[2])
    assert high == pytest.approx(exact[24])


def test_three_values_span_their_range_at_95_percent() -> None:
    # The rarest means have probability 1/27 > 2.5 % each.
    assert bootstrap([0.2, 0.5, 0.9]) == pytest.approx((0.2, 0.9))


def test_large_samples_agree_with_normal_theory() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=2000)
    low, high = bootstrap(list(values), confidence=0.9, resamples=4000)
    half = 1.6449 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_coverage() -> None:
    rng = np.random.default_rng(2)
    hits = [low <= 5 <= high for low, high in (bootstrap(list(rng.normal(5, size=40)), resamples=400) for _ in range(300))]
    assert 0.90 <= np.mean(hits) <= 0.98


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [0.1, 0.4, 0.35, 0.8]
    whole = bootstrap(values, resamples=501)
    monkeypatch.setattr(intervals, "CELLS", 28)
    assert bootstrap(values, resamples=501) == pytest.approx(whole)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.integers(0, 5))
def test_interval_is_ordered_within_the_values_and_repeats(values: list[float], seed: int) -> None:
    low, high = bootstrap(values, resamples=50, seed=seed)
    assert min(values) <= low <= high <= max(values)
    assert bootstrap(values, resamples=50, seed=seed) == (low, high)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=10), st.floats(-5, 5), st.floats(0.1, 10))
def test_interval_moves_and_scales_with_the_values(values: list[float], shift: float, factor: float) -> None:
    low, high = bootstrap(values, resamples=50)
    moved = bootstrap([factor * v + shift for v in values], resamples=50)
    assert moved == pytest.approx((factor * low + shift, factor * high + shift), abs=1e-9)


def test_confidence_widens_and_seed_matters() -> None:
    values = list(np.random.default_rng(3).normal(size=30))
    narrow, wide = bootstrap(values, confidence=0.5), bootstrap(values, confidence=0.99)
    assert wide[0] < narrow[0] < np.mean(values) < narrow[1] < wide[1]
    assert bootstrap(values, seed=1) != bootstrap(values, seed=2)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_too_few_values(values: list[float]) -> None:
    with pytest.raises(GiftError, match="at least 2 values"):
        bootstrap(values)


def test_bad_arguments() -> None:
    with pytest.raises(NonFiniteError):
        bootstrap([0.1, math.nan])
    with pytest.raises(GiftError, match="confidence"):
        bootstrap([0.1, 0.2], confidence=95)
    with pytest.raises(GiftError, match="resamples"):
        bootstrap([0.1, 0.2], resamples=0)
