"""Each flag where it belongs, and silence where all is well."""

import math
import random

import pytest

from gift.metrics.flags import attack_flags, comparison_flags

FALLING = [1 - i / 50 for i in range(50)]


def test_a_sound_attack_has_no_flags() -> None:
    assert attack_flags(FALLING, [0.3] * 50, 16, least_matched=16) == []


def test_loss_that_does_not_fall() -> None:
    for losses in (FALLING[::-1], [0.5] * 50):
        flags = attack_flags(losses, [0.3] * 50, 16)
        assert len(flags) == 1
        assert "did not fall" in flags[0]
    assert "0.11 in the first fifth of its steps, 0.91 in the last" in attack_flags(FALLING[::-1], [], 1)[0]


def test_noise_and_the_middle_do_not_decide() -> None:
    rng = random.Random(0)
    assert attack_flags([max(0.0, x + rng.gauss(0, 0.2)) for x in FALLING], [], 1) == []
    assert attack_flags([1.0, 9.0, 9.0, 9.0, 0.5], [], 1) == []
    assert attack_flags([*FALLING[:-5], 3.0, *FALLING[-4:]], [], 1) == [], "a single spike near the end"


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_losses_to_tell(count: int) -> None:
    assert attack_flags([0.5] * count, [], 1) == [f"too few steps ({count}) to tell whether the attack's loss falls"]


def test_gradients() -> None:
    assert attack_flags(FALLING, [0.0] * 50, 1) == ["every gradient of the attack is zero: it trained nothing"]
    assert attack_flags(FALLING, [0.0] * 49 + [1e-9], 1) == []
    assert attack_flags(FALLING, [], 1) == [], "none recorded is not zero"


def test_non_finite_values() -> None:
    flags = attack_flags([*FALLING, math.nan], [0.1, math.inf], 1)
    assert flags == ["the attack's loss is NaN or infinite at some step", "the attack's gradient is NaN or infinite at some step"]


def test_too_few_modules() -> None:
    assert attack_flags(FALLING, [], 0) == ["the attack matched 0 module(s), fewer than the 1 expected"]
    assert attack_flags(FALLING, [], 7, least_matched=8) == ["the attack matched 7 module(s), fewer than the 8 expected"]


def test_all_findings_are_told() -> None:
    assert len(attack_flags([0.5] * 10, [0.0] * 10, 0)) == 3


def test_a_sound_comparison_has_no_flags() -> None:
    assert comparison_flags(control_recovered=True, seeds=3, ladder=[("10 steps", 0.1), ("100 steps", 0.4)]) == []
    assert comparison_flags(control_recovered=True, seeds=5) == []


def test_control_that_did_not_recover_is_inconclusive() -> None:
    flags = comparison_flags(control_recovered=False, seeds=3)
    assert len(flags) == 1
    assert flags[0].startswith("inconclusive:")


def test_stronger_attack_below_a_weaker_one() -> None:
    flags = comparison_flags(control_recovered=True, seeds=3, ladder=[("default", 0.6), ("worst", 0.4)])
    assert flags == ["the stronger attack 'worst' scored 0.4, below 0.6 of the weaker 'default'"]


def test_ladder_compares_with_the_best_weaker_attack() -> None:
    ladder = [("a", 0.5), ("b", 0.47), ("c", 0.44), ("d", 0.7)]
    assert comparison_flags(control_recovered=True, seeds=3, ladder=ladder) == [
        "the stronger attack 'c' scored 0.44, below 0.5 of the weaker 'a'"
    ], "a slow decline isn't hidden by steps within the tolerance"
    assert comparison_flags(control_recovered=True, seeds=3, ladder=ladder, tolerance=0.1) == []
    assert len(comparison_flags(control_recovered=True, seeds=3, ladder=ladder, tolerance=0)) == 2


@pytest.mark.parametrize(("seeds", "start"), [(1, "single seed"), (2, "2 seeds"), (0, "0 seeds")])
def test_few_seeds(seeds: int, start: str) -> None:
    flags = comparison_flags(control_recovered=True, seeds=seeds)
    assert len(flags) == 1
    assert flags[0].startswith(start)


def test_a_control_that_was_never_erased_is_weak() -> None:
    assert comparison_flags(control_recovered=True, seeds=3, control_left=0.5) == []
    assert comparison_flags(control_recovered=True, seeds=3, control_left=0.97) == [
        "weak control: the undefended weights draw 97 % as much of the concept before the attack"
    ]


def test_collapse_is_passed_on() -> None:
    line = "collapsed: 80 % of pictures are constant"
    assert comparison_flags(control_recovered=True, seeds=3, collapse=line) == [line]


def test_losses_on_other_pictures_say_nothing_of_the_attack_s() -> None:
    easy, hard = [0.1] * 50, [9.0] * 50
    assert attack_flags([*easy, *FALLING], [], 1, harmless=50) == []
    assert "did not fall" in attack_flags([*easy, *FALLING], [], 1)[0], "as though they were the attack's"
    (flag,) = attack_flags([*hard, *FALLING[::-1]], [], 1, harmless=50)
    assert "0.11 in the first fifth of its steps, 0.91 in the last" in flag
    assert attack_flags([*hard, 0.5, 0.4], [], 1, harmless=50)[0].startswith("too few steps (2)")
    assert attack_flags(hard, [], 1, harmless=50) == ["the attack never saw the concept: its 50 steps are all on harmless pictures"]
    assert attack_flags([], [], 1, harmless=5)[0].startswith("too few steps (0)"), "no step, so none that could be harmless"


def test_every_flag_is_one_line() -> None:
    flags = attack_flags([0.5] * 10, [0.0] * 10, 0)
    flags += comparison_flags(control_recovered=False, seeds=1, ladder=[("a", 1), ("b", 0)], collapse="collapsed: all")
    assert len(flags) == 7
    assert all(flag and "\n" not in flag for flag in flags)
