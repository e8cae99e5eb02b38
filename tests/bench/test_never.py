"""The limit beside a method: read, matched to the attack, cut to its horizon, and shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gift.attacks import Full, Lora
from gift.bench import never
from gift.bench.identity import model_identity
from gift.bench.summary import limits, summarise
from gift.cli.bench import table
from gift.metrics.recovery import area
from gift.models import load
from gift.report.grid_words import limit_sentences
from gift.report.tables import overall, resistance
from gift.report.words import percent
from tests.report.made_grid import IDENTITY, every_cell


def described(how: Full | Lora) -> dict[str, Any]:
    return {"name": how.name, **how.model_dump(mode="json")}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a file of limits in place of the package's."""

    def write(entries: list[dict[str, Any]]) -> None:
        (tmp_path / "never.json").write_text(json.dumps({"of": IDENTITY, "twins": [], "curves": entries}))
        never.measured.cache_clear()

    monkeypatch.setattr(never, "FILE", tmp_path / "never.json")
    never.measured.cache_clear()
    yield write
    never.measured.cache_clear()


def test_a_curve_is_found_by_the_attack_and_cut_to_the_horizon(kept: Any) -> None:
    curves = [[[0, 0.0], [10, 0.2], [50, 0.5], [150, 0.9]], [[0, 0.0], [10, 0.4], [50, 0.7], [150, 1.0]]]
    kept([{"concept": "owl", "attack": described(Lora(steps=150)), "seed": i, "curve": c} for i, c in enumerate(curves)])
    assert never.never_learned("owl", described(Lora(steps=50)), 50) == [
        (0, 0.0),
        (10, pytest.approx(0.3)),
        (50, pytest.approx(0.6)),
    ]
    assert never.never_learned("owl", described(Lora(steps=60)), 60) is None, "the twins were not looked at there"
    assert never.never_learned("ant", described(Lora()), 50) is None
    assert never.never_learned("owl", described(Lora(rank=4)), 50) is None
    assert never.never_learned("owl", described(Full()), 50) is None


def test_a_curve_is_of_an_attacker_with_so_many_pictures(kept: Any) -> None:
    few, usual = [[0, 0.0], [10, 0.2]], [[0, 0.0], [10, 0.6]]
    how = described(Lora(steps=10))
    kept(
        [
            {"concept": "owl", "attack": how, "seed": 0, "pictures": 7, "curve": few},
            {"concept": "owl", "attack": how, "seed": 0, "curve": usual},
        ]
    )
    assert never.never_learned("owl", how, 10) == [tuple(point) for point in usual]
    assert never.never_learned("owl", how, 10, 7) == [tuple(point) for point in few]
    assert never.never_learned("owl", how, 10, 6) is None
    row = {"model_identity": IDENTITY, "concept": "owl", "curve": few, "control_curve": [[0, 0.0], [10, 1.0]]}
    for sizes, last in (({}, 0.6), ({"attack_pictures": 48}, 0.6), ({"attack_pictures": 7}, 0.2)):
        limit = never.limit_of({**row, "settings": {"attack": how, "sizes": sizes}})
        assert limit is not None
        assert limit["score_after"] == last
    assert never.limit_of({**row, "settings": {"attack": how, "sizes": {"attack_pictures": 8}}}) is None


def test_a_record_of_another_model_has_no_limit(kept: Any) -> None:
    """Of weights that are none of the bundled model's, or that are drawn from otherwise."""
    how = described(Lora(steps=10))
    kept([{"concept": "owl", "attack": how, "seed": 0, "curve": [[0, 0.0], [10, 0.6]]}])
    row = {"concept": "owl", "curve": [[0, 0.0], [10, 0.2]], "control_curve": [[0, 0.0], [10, 1.0]], "settings": {"attack": how}}
    assert never.limit_of({**row, "model_identity": IDENTITY}) is not None
    assert never.limit_of({**row, "model_identity": "another"}) is None


def test_the_package_s_twins_are_of_the_bundled_model() -> None:
    never.measured.cache_clear()
    found = never.measured()
    assert found.of == model_identity(load("tiny"))
    assert found.of != model_identity(load("tiny", guidance=7.5))
    assert found.curves


def last_cells(summary: dict[str, Any]) -> list[str]:
    """The last row of the command's table."""
    return [str(list(column.cells)[-1]) for column in table(summary).columns]


def test_of_how_many_cells_a_limit_is_is_told_where_it_is_not_of_all(kept: Any) -> None:
    rows = [row for row in every_cell() if row["status"] == "ok" and row["attack"] == "full"]
    method = max({row["method"] for row in rows}, key=lambda name: len({r["concept"] for r in rows if r["method"] == name}))
    rows = [row for row in rows if row["method"] == method]
    names = list(dict.fromkeys(row["concept"] for row in rows))
    assert len(names) > 1
    entries = [
        {
            "concept": name,
            "attack": rows[0]["settings"]["attack"],
            "seed": 0,
            "curve": [[step, 0.25] for step, _ in rows[0]["curve"]],
        }
        for name in names
    ]
    kept(entries[:1])
    some, mine = summarise(rows), sum(row["concept"] == names[0] for row in rows)
    assert limits(some)["full"].items() >= {"cells": mine, "of": len(rows)}.items()
    told = f"({mine} of {len(rows)})"
    for kind in (resistance, overall):
        last = kind({**some, "rows": rows}).splitlines()[-1]
        assert last.startswith("| never learned |")
        assert told in last
    assert f"never learned ({mine} of {len(rows)})" in last_cells(some)
    assert f"(measured in {mine} of {len(rows)} cells)" in limit_sentences(some)[0]
    kept(entries)
    every = summarise(rows)
    assert " of " not in resistance({**every, "rows": rows}).splitlines()[-1]
    assert f"{len(rows)}/{len(rows)}" not in last_cells(every)
    assert "measured in" not in limit_sentences(every)[0]


def test_without_a_file_there_is_no_limit(kept: Any) -> None:
    assert never.never_learned("owl", described(Lora()), 50) is None


def test_the_limit_stands_in_the_summary_and_the_table(kept: Any) -> None:
    rows = [row for row in every_cell() if row["status"] == "ok"]
    assert all(group["limit"] is None for group in summarise(rows)["groups"])
    row = next(r for r in reversed(rows) if r["attack"] == "full")
    curve = [(int(step), score / 2) for step, score in row["control_curve"]]
    kept([{"concept": row["concept"], "attack": row["settings"]["attack"], "seed": 0, "curve": curve}])
    summary = summarise(rows)
    group = next(g for g in summary["groups"] if (g["method"], g["attack"]) == (row["method"], row["attack"]))
    mine = [r for r in rows if (r["method"], r["attack"], r["concept"]) == (row["method"], row["attack"], row["concept"])]
    assert group["limit"]["area"] == pytest.approx(area(curve), abs=1e-5)
    reached = sum(r["relearning_reduction"] for r in mine) / len(mine)
    assert group["limit"]["share"] == pytest.approx(reached / group["limit"]["reduction"])
    assert row["attack"] in limits(summary)
    assert any(str(name).startswith("never learned") for name in table(summary).columns[0].cells)
    sentence = next(text for text in limit_sentences(summary) if text.startswith(f"Under {row['attack']}, models that never saw"))
    assert f"{row['method']} {percent(group['limit']['reached'])}" in sentence
    assert f"{percent(group['limit']['reduction'])} less than the control relearns, and a" in sentence
    kept([{"concept": row["concept"], "attack": row["settings"]["attack"], "seed": 0, "curve": [(0, 0.9), (curve[-1][0], 1.0)]}])
    sooner = next(text for text in limit_sentences(summarise(rows)) if "models that never saw" in text)
    shown = table(summarise(rows))
    heads = [list(column.cells) for column in shown.columns][:4]
    (here,) = (place for place, pair in enumerate(zip(*heads[:2], strict=True)) if pair == (row["method"], "full"))
    assert [cells[here] for cells in heads[2:]] == [f"{group['means'][key]['mean']:.2f}" for key in ("score_before", "score_after")]
    (place,) = (place for place, name in enumerate(shown.columns[0].cells) if str(name).startswith("never learned (1 of "))
    assert [list(column.cells)[place] for column in shown.columns][1:4] == ["full", "0.90", "1.00"]
    assert re.search(r"That is \d+.% more than the control relearns, and a", sooner)


def test_searched_attacks_have_limits_of_their_own_and_none_in_common(kept: Any) -> None:
    rows = [row for row in every_cell() if row["status"] == "ok" and row["attack"] in {"lora", "worst"}]
    searched = [row for row in rows if row["attack"] == "worst"]
    assert len({row["method"] for row in searched}) > 1
    row = searched[0]
    curve = [(int(step), score / 2) for step, score in row["control_curve"]]
    kept([{"concept": row["concept"], "attack": row["attack_found"], "seed": 0, "curve": curve}])
    several = summarise(rows)
    group = next(g for g in several["groups"] if (g["method"], g["attack"]) == (row["method"], "worst"))
    assert group["limit"]["area"] == pytest.approx(area(curve), abs=1e-5)
    assert "worst" not in limits(several), "each method's worst attack is another"
    alone = summarise([r for r in rows if r["attack"] == "lora" or r["method"] == row["method"]])
    assert limits(alone)["worst"] == group["limit"]
