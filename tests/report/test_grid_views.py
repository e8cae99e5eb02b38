"""What the page makes of a grid's cells: recoveries, mean curves, looks, explanations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gift.bench.grid_record import load
from gift.metrics.flags import attack_flags, comparison_flags
from gift.report.grid_views import Group, mean_curve, scopes
from gift.report.grid_words import steps
from gift.report.palette import KNOWN, looks
from gift.report.words import explain
from tests.report.made_grid import cell, write


@pytest.fixture
def group(tmp_path: Path) -> Callable[..., Group]:
    """Makes a group of cells that recovered at the given steps, with the given seconds for the whole attack."""

    def make(*ends: int | None, seconds: float = 30.0, statuses: str = "") -> Group:
        rows: list[dict[str, Any]] = []
        for seed, end in enumerate(ends):
            row = cell("esd+gift", "lora", "mushroom", 0)
            row.update(seed=seed, steps_to_recover=end, status="collapsed" if statuses[seed : seed + 1] == "c" else "ok")
            row["costs"]["attack"]["seconds"] = seconds
            rows.append(row)
        write(tmp_path, rows, sheets=False)
        return scopes(load(tmp_path))[0].groups[0]

    return make


@pytest.mark.parametrize(
    ("ends", "step", "said"),
    [
        ([50], 50, "50"),
        ([0], 0, "0"),
        ([None], None, "not within 150 steps"),
        ([20, 10, 100], 20, "20"),
        ([10, 100], 10, "10"),
        ([None, 50], 50, "50 (1 of 2)"),
        ([None, 50, None], None, "not within 150 steps (1 of 3)"),
        ([None, 50, 20, None], 50, "50 (2 of 4)"),
    ],
)
def test_a_concept_is_back_when_half_of_the_cells_show_it(
    group: Callable[..., Group], ends: list[int | None], step: int | None, said: str
) -> None:
    found = group(*ends)
    back = found.recovery
    assert back is not None
    assert back.step == step
    assert back.seconds == pytest.approx(30.0 if step is None else 30.0 * step / 150)
    assert steps(found) == said


def test_cells_that_do_not_count_are_in_no_recovery(group: Callable[..., Group]) -> None:
    found = group(None, 50, statuses="c-")
    assert found.recovery is not None
    assert (found.recovery.step, found.recovery.of) == (50, 1)
    assert group(None, None, statuses="cc").recovery is None


def test_curves_of_other_steps_are_averaged_where_all_were_measured() -> None:
    points = mean_curve([[(0, 0.0), (10, 0.2), (20, 0.4)], [(0, 0.2), (20, 0.6)]])
    assert [(point.step, point.mean) for point in points] == [(0, 0.1), (20, 0.5)]
    assert points[0].interval == (0.0, 0.2)
    by_concept = mean_curve([[(0, 0.0)], [(0, 0.2)], [(0, 0.6)]], ["ant", "ant", "owl"])
    assert by_concept[0].interval == (pytest.approx(0.1), 0.6)
    assert mean_curve([[(0, 0.1), (9, 0.3)]])[1].interval is None
    assert mean_curve([]) == []


def test_a_chain_looks_like_its_last_method_unless_that_is_there_itself() -> None:
    chains = {"none": "none", "erased": "esd", "imma": "imma", "esd+imma": "imma", "esd+gift": "gift"}
    drawn = looks(list(chains), chains)
    assert drawn["erased"] == KNOWN["esd"]
    assert drawn["esd+gift"] == KNOWN["gift"]
    assert drawn["imma"] == KNOWN["imma"]
    assert drawn["esd+imma"] not in KNOWN.values()


def test_twelve_unknown_methods_look_different() -> None:
    names = [f"new-{n}" for n in range(12)]
    assert len(set(looks(names).values())) == 12


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["failed: 'price esd' failed: no room before the safe pictures"], "could not be computed"),
        (["short horizon: 20 attack steps, fewer than 5 times the 30 of the simulated attacker"], "short beside"),
        (attack_flags([1.0], [1.0], 1), "so short"),
        (attack_flags([1.0] * 10, [1.0], 1), "did not fall"),
        (attack_flags([5.0, 4.0], [1.0], 1, harmless=2), "on nothing of the concept"),
        (["3 of 8 pictures of the concept are one single colour: they show nothing of it"], "nothing at all"),
        (["few pictures: 4"], "small differences are noise"),
        (attack_flags([float("nan")], [1.0], 1), "ran away"),
        (attack_flags([5.0, 4.0, 3.0, 2.0, 1.0], [0.0], 1), "exactly zero"),
        (attack_flags([5.0, 4.0, 3.0, 2.0, 1.0], [1.0], 0), "fewer layers"),
        (comparison_flags(control_recovered=False, seeds=3), "says nothing about the defence"),
        (comparison_flags(control_recovered=True, seeds=1), "run was made once"),
        (comparison_flags(control_recovered=True, seeds=2), "so few seeds"),
        (comparison_flags(control_recovered=True, seeds=3, ladder=[("a", 0.9), ("b", 0.1)]), "badly tuned attack"),
        (["collapsed: 60 % of pictures are constant"], "broken"),
    ],
)
def test_every_flag_has_the_explanation_that_is_meant(flags: list[str], word: str) -> None:
    (flag,) = flags
    assert word in (explain(flag) or "")
