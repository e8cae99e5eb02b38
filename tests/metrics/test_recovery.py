"""Recovery curves against hand-computed cases, scipy's trapezoid rule and their own algebra."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from gift.errors import GiftError, NonFiniteError
from gift.metrics.recovery import (
    Curve,
    area,
    control_recovers,
    recovery_ratio,
    reduction_at_end,
    relearning_reduction,
    steps_to_recover,
)

UNDEFENDED = [(0, 0.0), (10, 0.6), (40, 0.8)]
DEFENDED = [(0, 0.0), (10, 0.0), (40, 0.4)]


@st.composite
def curves(draw: st.DrawFn, floor: float = 0.0) -> list[tuple[int, float]]:
    gaps = draw(st.lists(st.integers(1, 500), min_size=1, max_size=12))
    steps = [0]
    for gap in gaps:
        steps.append(steps[-1] + gap)
    scores = draw(st.lists(st.floats(floor, 1), min_size=len(steps), max_size=len(steps)))
    return list(zip(steps, scores, strict=True))


def test_area_by_hand() -> None:
    # 10 * 0.3 + 30 * 0.7 = 24, over 40 steps.
    assert area(UNDEFENDED) == pytest.approx(0.6)
    assert area(DEFENDED) == pytest.approx(0.15)


@given(curves())
def test_area_agrees_with_scipy_and_stays_within_the_scores(curve: Curve) -> None:
    steps, scores = zip(*curve, strict=True)
    assert area(curve) == pytest.approx(float(trapezoid(scores, steps)) / steps[-1])
    assert min(scores) - 1e-12 <= area(curve) <= max(scores) + 1e-12


@given(curves(floor=0.01), st.floats(0.01, 100), st.integers(1, 9))
def test_area_scales_with_score_and_not_with_step(curve: Curve, factor: float, stretch: int) -> None:
    assert area([(step, factor * score) for step, score in curve]) == pytest.approx(factor * area(curve))
    assert area([(stretch * step, score) for step, score in curve]) == pytest.approx(area(curve))


def test_a_measured_midpoint_on_the_line_changes_nothing() -> None:
    assert area([(0, 0.2), (5, 0.4), (10, 0.6)]) == pytest.approx(area([(0, 0.2), (10, 0.6)]))


def test_reductions_by_hand() -> None:
    assert relearning_reduction(DEFENDED, UNDEFENDED) == pytest.approx(0.75)
    assert reduction_at_end(DEFENDED, UNDEFENDED) == pytest.approx(0.5)
    assert relearning_reduction(UNDEFENDED, DEFENDED) == pytest.approx(-3.0)


@given(curves(floor=0.01), st.floats(0, 2))
def test_reduction_of_a_scaled_curve_is_the_missing_share(curve: Curve, factor: float) -> None:
    scaled = [(step, factor * score) for step, score in curve]
    assert relearning_reduction(curve, curve) == 0
    assert reduction_at_end(curve, curve) == 0
    assert relearning_reduction(scaled, curve) == pytest.approx(1 - factor, abs=1e-9)
    assert reduction_at_end(scaled, curve) == pytest.approx(1 - factor, abs=1e-9)


def test_nothing_relearned_leaves_nothing_to_reduce() -> None:
    flat = [(0, 0.0), (10, 0.0), (40, 0.0)]
    assert relearning_reduction(DEFENDED, flat) is None
    assert reduction_at_end(DEFENDED, flat) is None
    fell = [(0, 0.0), (10, 0.9), (40, 0.0)]
    assert reduction_at_end(DEFENDED, fell) is None
    assert relearning_reduction(DEFENDED, fell) is not None


@pytest.mark.parametrize("reduce", [relearning_reduction, reduction_at_end])
def test_unequal_horizons_are_refused(reduce) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(GiftError, match=r"ends at step 40.*at 80"):
        reduce(DEFENDED, [(0, 0.0), (80, 1.0)])


def test_steps_to_recover_takes_a_measured_step() -> None:
    # The line from 0 to 0.6 crosses 0.4 between 0 and 10; only 10 was measured.
    assert steps_to_recover(UNDEFENDED, 0.8) == 10
    assert steps_to_recover(UNDEFENDED, 0.8, share=1.0) == 40
    assert steps_to_recover(DEFENDED, 0.8) == 40, "reaching the goal exactly counts"
    assert steps_to_recover(DEFENDED, 0.82) is None
    assert steps_to_recover([(0, 0.9), (5, 0.0)], 0.8) == 0
    assert steps_to_recover([(0, 0.0), (5, 0.9), (9, 0.0)], 0.8) == 5, "a later fall doesn't undo it"


@given(curves(), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_higher_share_never_recovers_sooner(curve: Curve, original: float, one: float, other: float) -> None:
    easy, hard = (steps_to_recover(curve, original, share) for share in sorted((one, other)))
    assert (math.inf if easy is None else easy) <= (math.inf if hard is None else hard)


def test_recovery_ratio() -> None:
    assert recovery_ratio(DEFENDED, UNDEFENDED, 0.8) == 4.0
    assert recovery_ratio(UNDEFENDED, UNDEFENDED, 0.8) == 1.0
    assert recovery_ratio(DEFENDED, UNDEFENDED, 1.0) is None, "the defended curve never recovers"
    assert recovery_ratio(UNDEFENDED, DEFENDED, 1.0) is None, "the undefended curve never recovers"
    shown = [(0, 0.8), (40, 0.8)]
    assert recovery_ratio(DEFENDED, shown, 0.8) is None, "the undefended weights never lost it"
    assert recovery_ratio(shown, UNDEFENDED, 0.8) == 0.0, "the defended weights never lost it"


def test_control_counts_only_what_the_attack_shows() -> None:
    assert control_recovers(UNDEFENDED, 0.8)
    assert control_recovers(DEFENDED, 0.8)
    assert not control_recovers(DEFENDED, 0.9)
    assert control_recovers(DEFENDED, 0.9, share=0.4)
    assert not control_recovers([(0, 0.8), (10, 0.0)], 0.8), "it only wrecked what was there"


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        ([], "0 point"),
        ([(0, 0.5)], "1 point"),
        ([(5, 0.5), (10, 0.5)], "begins at step 5"),
        ([(0, 0.5), (10, 0.5), (10, 0.6)], "step 10 to step 10"),
        ([(0, 0.5), (10, 0.5), (5, 0.6)], "step 10 to step 5"),
    ],
)
def test_malformed_curves_are_refused(curve: Curve, message: str) -> None:
    for measure in (
        area,
        lambda c: steps_to_recover(c, 1.0),
        lambda c: control_recovers(c, 1.0),
        lambda c: relearning_reduction(c, c),
    ):
        with pytest.raises(GiftError, match=message):
            measure(curve)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_scores_are_refused(bad: float) -> None:
    with pytest.raises(NonFiniteError, match="at step 10"):
        area([(0, 0.0), (10, bad)])


@pytest.mark.parametrize("original", [0.0, -1.0, math.nan])
def test_a_concept_that_was_never_drawn_is_refused(original: float) -> None:
    with pytest.raises(GiftError, match="the model can draw"):
        steps_to_recover(UNDEFENDED, original)
    with pytest.raises(GiftError, match="the model can draw"):
        control_recovers(UNDEFENDED, original)


@pytest.mark.parametrize("share", [0.0, 1.1, -0.5])
def test_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(GiftError, match="not in"):
        steps_to_recover(UNDEFENDED, 0.8, share)
