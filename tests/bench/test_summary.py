"""A grid's summary: means with intervals over concepts, and a ranking that damage does not win."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from gift.bench.summary import LEAST_SAFE, damages, summarise
from gift.cli.bench import WIDE, place, table
from gift.metrics.intervals import bootstrap
from tests.report.made_grid import CHAINS, cell, every_cell

Rows = list[dict[str, Any]]
CELLS = (("ant", 0), ("ant", 1), ("owl", 0))


def rows(safe: dict[str, float], area: dict[str, float], attacks: tuple[str, ...] = ("lora",), control: str = "esd") -> Rows:
    """Cells that all count, of methods with the given safe accuracy and area, on two concepts of which one has two seeds."""
    out = []
    for method, share in safe.items():
        for attack in attacks:
            for concept, seed in CELLS:
                row = cell(method if method in CHAINS else "esd", attack, "mushroom", 0)
                row |= {"method": method, "concept": concept, "seed": seed, "status": "ok", "area": area[method]}
                row["settings"]["control"] = control
                row["price"]["safe_accuracy"] = share
                out.append(row)
    return out


def ranking(cells: Rows) -> list[tuple[str, int | None]]:
    return [(entry["method"], entry["place"]) for entry in summarise(cells)["ranking"]["tiny"]]


def damaged(cells: Rows) -> dict[str, str]:
    return {entry["method"]: entry["damaged"] for entry in summarise(cells)["ranking"]["tiny"] if entry["damaged"]}


def test_means_are_over_cells_and_intervals_over_concepts() -> None:
    cells = rows({"none": 0.9}, {"none": 0.5})
    for row, area in zip(cells, (0.1, 0.2, 0.9), strict=True):
        row["area"] = area
    (group,) = summarise(cells)["groups"]
    assert group["means"]["area"]["mean"] == pytest.approx(0.4)
    assert group["means"]["area"]["interval"] == [0.15, 0.9], "the two seeds of 'ant' come together"
    (group,) = summarise(cells[:2])["groups"]
    assert group["means"]["area"]["interval"] == pytest.approx(bootstrap([0.1, 0.2])), "one concept: its seeds"


def test_values_that_some_cells_lack_keep_their_concepts() -> None:
    cells = rows({"none": 0.9}, {"none": 0.5})
    for row, value in zip(cells, (None, 0.2, 0.9), strict=True):
        row["relearning_reduction"] = value
    (group,) = summarise(cells)["groups"]
    assert group["means"]["relearning_reduction"] == {"mean": 0.55, "interval": [0.2, 0.9], "n": 2}


def test_a_method_that_ruins_the_model_does_not_come_first() -> None:
    safe = {"none": 0.9, "esd": 0.88, "ascent": 0.4, "esd+gift": 0.8}
    cells = rows(safe, {"none": 0.9, "esd": 0.7, "ascent": 0.0, "esd+gift": 0.2})
    assert ranking(cells) == [("esd+gift", 1), ("esd", 2), ("none", 3), ("ascent", 4)]
    assert damaged(cells) == {"ascent": "damaged: safe accuracy 0.40 of 0.90, less than 75 % of that of 'none'"}
    entry = summarise(cells)["ranking"]["tiny"][-1]
    assert place(entry) == f"4. ascent (area 0.000 under lora, {entry['damaged']})"


def test_the_threshold_itself_is_sound_and_damaged_ones_are_ordered_among_themselves() -> None:
    safe = {"none": 0.92, "esd": round(LEAST_SAFE * 0.92, 6), "ascent": 0.68, "esd+gift": 0.1}
    cells = rows(safe, {"none": 0.9, "esd": 0.8, "ascent": 0.0, "esd+gift": 0.0})
    assert ranking(cells) == [("esd", 1), ("none", 2), ("ascent", 3), ("esd+gift", 3)]
    assert set(damaged(cells)) == {"ascent", "esd+gift"}


def test_the_control_stands_in_for_weights_as_they_are() -> None:
    cells = rows({"esd": 0.8, "ascent": 0.5}, {"esd": 0.8, "ascent": 0.1})
    assert damaged(cells) == {"ascent": "damaged: safe accuracy 0.50 of 0.80, less than 75 % of that of 'esd'"}
    for row in cells:
        row["settings"]["control"] = "redirect"
    assert ranking(cells) == [("ascent", 1), ("esd", 2)], "nothing undefended was measured"
    assert [group["kept"] for group in summarise(cells)["groups"]] == [None, None]


def test_damage_is_judged_over_the_cells_of_the_worst_attack_that_count() -> None:
    cells = rows({"none": 0.9, "ascent": 0.4}, {"none": 0.9, "ascent": 0.1}, attacks=("lora", "full"))
    for row in cells:
        if row["method"] == "ascent":
            row["area"] = 0.3 if row["attack"] == "full" else 0.1
            row["status"] = "ok" if row["attack"] == "lora" or row["concept"] == "owl" else "inconclusive"
            row["price"]["safe_accuracy"] = 0.89 if row["concept"] == "owl" else 0.1
    assert ranking(cells) == [("ascent", 1), ("none", 2)]
    by_attack = {(group["method"], group["attack"]): group["kept"]["safe_accuracy"] for group in summarise(cells)["groups"]}
    assert by_attack["ascent", "lora"] == pytest.approx((0.1 + 0.1 + 0.89) / 3)


def test_undefended_weights_whose_attack_proves_nothing_still_draw() -> None:
    cells = rows({"none": 0.9, "ascent": 0.4}, {"none": 0.9, "ascent": 0.1})
    for row in cells:
        row["status"] = "inconclusive" if row["method"] == "none" else row["status"]
    assert ranking(cells) == [("ascent", 1), ("none", None)]
    assert set(damaged(cells)) == {"ascent"}


def test_cells_without_anything_undefended_beside_them_are_left_out_of_the_comparison() -> None:
    cells = rows({"none": 0.9, "ascent": 0.4}, {"none": 0.9, "ascent": 0.1})
    for row in cells:
        if row["method"] == "none" and row["concept"] == "ant":
            row.update(status="failed", error="no room")
        if row["method"] == "ascent" and row["concept"] == "owl":
            row["price"]["safe_accuracy"] = 0.8
    (kept,) = [group["kept"] for group in summarise(cells)["groups"] if group["method"] == "ascent"]
    assert kept == {"safe_accuracy": 0.8, "of": 0.9, "reference": "none"}


@pytest.mark.parametrize("columns", [80, 200])
def test_the_printed_table_fits_and_shows_intervals_where_there_is_room(columns: int) -> None:
    console = Console(width=columns, record=True, file=io.StringIO())
    console.print(table(summarise(list(every_cell())), wide=columns >= WIDE))
    lines = console.export_text().splitlines()
    assert all(len(line.rstrip()) <= columns for line in lines)
    (row,) = (line for line in lines if line.startswith("esd+gift") and " lora " in line)
    assert "…" not in row
    assert ("[" in row) is (columns == 200)


def test_undefended_weights_of_a_part_of_the_cells_are_no_reference_for_all() -> None:
    cells = rows({"esd": 0.8, "ascent": 0.5}, {"esd": 0.8, "ascent": 0.1})
    cells += [row for row in rows({"none": 0.9}, {"none": 0.9}) if row["concept"] == "ant"]
    (kept,) = [group["kept"] for group in summarise(cells)["groups"] if group["method"] == "ascent"]
    assert kept == {"safe_accuracy": 0.5, "of": 0.8, "reference": "esd"}


def test_damage_over_all_attacks_counts_every_model_once() -> None:
    cells = rows({"none": 0.9, "ascent": 0.9}, {"none": 0.9, "ascent": 0.1}, attacks=("lora", "full"))
    for row in cells:
        if row["method"] == "ascent":
            row["price"]["safe_accuracy"] = 0.1 if row["concept"] == "owl" else 0.9
            row["status"] = "inconclusive" if (row["attack"], row["concept"]) == ("full", "ant") else "ok"
    assert damages(cells) == {"ascent": "damaged: safe accuracy 0.63 of 0.90, less than 75 % of that of 'none'"}
    assert damages([row for row in cells if row["concept"] == "ant"]) == {}
