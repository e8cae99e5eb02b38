"""The bootstrap against exact enumeration, normal theory and its own invariances."""

import itertools
import math
import random

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


Labelled = list[tuple[float, str]]
labelled = st.lists(st.tuples(st.floats(-1e3, 1e3), st.sampled_from("abcd")), min_size=2, max_size=20)


def split(pairs: Labelled) -> tuple[list[float], list[str]]:
    return [value for value, _ in pairs], [label for _, label in pairs]


def test_two_clusters_of_equal_values_span_both() -> None:
    # Either cluster alone has probability 1/4 > 2.5 %.
    assert bootstrap([0.2, 0.2, 0.7, 0.7, 0.7], clusters=["a", "a", "b", "b", "b"]) == pytest.approx((0.2, 0.7))


def test_clusters_against_every_resample_of_whole_ones() -> None:
    groups = {"a": [0.0, 0.2, 0.1], "b": [0.5], "c": [0.9, 0.7]}
    picks = itertools.product(groups.values(), repeat=3)
    exact = np.sort([np.mean([value for group in pick for value in group]) for pick in picks])
    pairs = [(value, label) for label, values in groups.items() for value in values]
    values, labels = split([pairs[i] for i in (4, 0, 3, 2, 5, 1)])
    low, high = bootstrap(values, clusters=labels, confidence=0.8, resamples=20_000)
    assert low == pytest.approx(exact[2])
    assert high == pytest.approx(exact[24])


@given(labelled, st.integers(0, 3))
def test_clusters_against_a_plain_loop(pairs: Labelled, seed: int) -> None:
    values, labels = split(pairs)
    groups = [[value for value, label in pairs if label == name] for name in dict.fromkeys(labels)]
    units = groups if len(groups) > 1 else [[value] for value in values]
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(40):
        drawn = [value for place in rng.integers(len(units), size=len(units)) for value in units[place]]
        means.append(sum(drawn) / len(drawn))
    expected = np.quantile(means, [0.1, 0.9])
    assert bootstrap(values, clusters=labels, confidence=0.8, resamples=40, seed=seed) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_clusters_of_one_value_each_or_one_of_all_are_none(values: list[float]) -> None:
    plain = bootstrap(values, resamples=50)
    assert bootstrap(values, clusters=range(len(values)), resamples=50) == pytest.approx(plain, abs=1e-9)
    assert bootstrap(values, clusters=["a"] * len(values), resamples=50) == plain


@given(labelled, st.randoms())
def test_a_clustered_interval_lies_within_the_values_and_names_and_order_within_do_not_matter(
    pairs: Labelled, random: random.Random
) -> None:
    values, labels = split(pairs)
    low, high = bootstrap(values, clusters=labels, resamples=50)
    assert min(values) <= low <= high <= max(values)
    assert bootstrap(values, clusters=[(label, 1) for label in labels], resamples=50) == (low, high)
    order = list(dict.fromkeys(labels))
    if len(order) > 1:
        mixed = sorted(random.sample(pairs, len(pairs)), key=lambda pair: order.index(pair[1]))
        values, labels = split(mixed)
        assert bootstrap(values, clusters=labels, resamples=50) == pytest.approx((low, high), abs=1e-9)


def test_the_order_of_clusters_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    groups = [list(rng.normal(size=size)) for size in (2, 5, 3, 1, 4, 2)]
    ends = []
    for order in (groups, groups[::-1]):
        pairs = [(value, place) for place, group in enumerate(order) for value in group]
        ends.append(bootstrap([v for v, _ in pairs], clusters=[c for _, c in pairs], resamples=40_000))
    assert ends[0] == pytest.approx(ends[1], abs=0.02)


def test_alike_clusters_are_covered_where_single_values_are_not() -> None:
    rng = np.random.default_rng(5)
    labels = [place for place in range(25) for _ in range(4)]
    plain: list[bool] = []
    clustered: list[bool] = []
    for _ in range(200):
        values = list(np.repeat(rng.normal(5, size=25), 4) + rng.normal(0, 0.1, size=100))
        for hits, given_labels in ((plain, None), (clustered, labels)):
            low, high = bootstrap(values, clusters=given_labels, resamples=300)
            hits.append(low <= 5 <= high)
    assert np.mean(clustered) >= 0.88
    assert np.mean(plain) <= 0.75


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
    with pytest.raises(GiftError, match="3 cluster labels for 2 values"):
        bootstrap([0.1, 0.2], clusters=["a", "a", "b"])
    with pytest.raises(GiftError, match="confidence"):
        bootstrap([0.1, 0.2], confidence=95)
    with pytest.raises(GiftError, match="resamples"):
        bootstrap([0.1, 0.2], resamples=0)
