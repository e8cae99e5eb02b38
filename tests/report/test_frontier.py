"""The frontier: means over what all settings met, and none of its points beaten in both resistance and price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift.bench.summary import summarise
from gift.report.frontier import Setting, front, settings_of, shared_attacks

SETTINGS = st.lists(st.tuples(st.integers(0, 4), st.integers(-2, 4)), max_size=12)


@pytest.fixture
def rows(grid_folder: Path) -> list[dict[str, Any]]:
    """A grid's records."""
    return [json.loads(line) for line in (grid_folder / "records.jsonl").read_text().splitlines()]


@given(SETTINGS)
def test_the_front_is_what_none_equals_or_beats(values: list[tuple[int, int]]) -> None:
    settings = [Setting(str(i), (), fid, reduction, 1.0, None) for i, (fid, reduction) in enumerate(values)]
    kept = front(settings)
    points = {(s.fid, s.reduction) for s in settings}
    beaten = {p for p in points if any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)}
    assert {(s.fid, s.reduction) for s in kept} == points - beaten
    assert len(kept) == len(points - beaten), "equal ones count once"
    assert [s.fid for s in kept] == sorted(s.fid for s in kept)


def test_settings_are_means_over_the_attacks_that_all_met(rows: list[dict[str, Any]]) -> None:
    dropped = next(row["attack"] for row in rows if row["method"] == "esd")
    rows = [row for row in rows if (row["method"], row["attack"]) != ("esd", dropped)]
    summary = {**summarise(rows), "rows": rows}
    attacks = shared_attacks(summary)
    assert attacks
    assert dropped not in attacks
    found = {setting.method: setting for setting in settings_of(summary)}
    assert found
    for method, setting in found.items():
        cells = [r for r in rows if r["method"] == method and r["attack"] in attacks and r["status"] == "ok"]
        by_attack = [[r["relearning_reduction"] for r in cells if r["attack"] == attack] for attack in attacks]
        assert setting.reduction == pytest.approx(sum(sum(v) / len(v) for v in by_attack) / len(by_attack), abs=1e-6)
        first = [r for r in cells if r["attack"] == attacks[0]]
        assert setting.fid == pytest.approx(sum(r["price"]["fid"] for r in first) / len(first), abs=1e-6)


def test_one_setting_under_two_names_counts_once_and_an_inconclusive_one_not_at_all(rows: list[dict[str, Any]]) -> None:
    before = {s.method for s in settings_of({**summarise(rows), "rows": rows})}
    again = [{**row, "method": "again"} for row in rows if row["method"] == "esd+gift"]
    assert {s.method for s in settings_of({**summarise(rows + again), "rows": rows + again})} == before
    lost = [{**row, "status": "inconclusive"} if row["method"] == "esd+gift" else row for row in rows]
    assert {s.method for s in settings_of({**summarise(lost), "rows": lost})} == before - {"esd+gift"}


def test_a_method_that_ruins_everything_else_is_no_point(rows: list[dict[str, Any]]) -> None:
    before = {s.method for s in settings_of({**summarise(rows), "rows": rows})}
    ruined = [
        {**row, "price": {**row["price"], "safe_accuracy": float(row["method"] != "esd+gift")}} if "price" in row else row
        for row in rows
    ]
    assert "esd+gift" in before
    assert "esd+gift" not in {s.method for s in settings_of({**summarise(ruined), "rows": ruined})}
