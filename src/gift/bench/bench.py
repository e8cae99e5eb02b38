"""A grid from beginning to end in a folder: pieces, one record a cell, a summary."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gift.bench.grid import Grid
from gift.bench.plan import Plan, make_plan
from gift.bench.provenance import commit, machine
from gift.bench.row_parts import Row
from gift.bench.rows import make_row
from gift.bench.runner import Here, Tally, Workers, run
from gift.bench.sheets import write_sheets
from gift.bench.store import Store
from gift.bench.summary import summarise
from gift.files import write_json, write_text
from gift.training.progress import Reporter


@dataclass(frozen=True)
class Outcome:
    """What a run of a grid gave."""

    rows: list[Row]
    summary: dict[str, Any]
    tally: Tally

    @property
    def failed(self) -> list[Row]:
        """The cells that could not be computed."""
        return [row for row in self.rows if row["status"] == "failed"]


def run_grid(grid: Grid, folder: Path, workers: Callable[[], Workers] | None = None, reporter: Reporter | None = None) -> Outcome:
    """Computes what is missing of a grid and writes its records.

    `cells/` has one JSON a cell, `records.jsonl` all of them in order, `summary.json` their means, `pictures/` what the attacks
    drew, listed in `pictures.json`; `pieces/` is what they rest on. Apart from times and memory, the same grid gives the same
    `cells/` and `records.jsonl`, however it was run or interrupted.

    Args:
        grid: what to compute.
        folder: where it goes; not shared with another run at the same time.
        workers: makes those who compute; by default this process does.
        reporter: told of progress.

    Raises:
        GiftError: the grid can't be laid out, or the folder can't be written.
        Interrupted: stopped on request; the same call goes on.
    """
    plan = make_plan(grid)
    if reporter:
        reporter.say(f"{len(plan.cells)} cells of {len(plan.pieces)} pieces")
    hands = workers() if workers else Here(folder, reporter)
    try:
        tally = run(plan, folder, hands, reporter)
    finally:
        hands.close()
    return write_records(plan, folder, tally)


def write_records(plan: Plan, folder: Path, tally: Tally) -> Outcome:
    """Writes every cell's record, the summary and the pictures; the folder then holds this plan's cells and no others."""
    store = Store(folder / "pieces")
    rows = [make_row(plan, cell, store, tally) for cell in plan.cells]
    names = [f"{cell.name}.json" for cell in plan.cells]
    for name, row in zip(names, rows, strict=True):
        write_json(folder / "cells" / name, row)
    for old in (folder / "cells").glob("*.json"):
        if old.name not in names:
            old.unlink()
    write_sheets(plan, folder, store)
    write_text(folder / "records.jsonl", "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
    summary = {
        "grid": plan.grid.model_dump(mode="json"),
        **summarise(rows),
        "pieces": {"computed": tally.computed, "found": tally.found, "failed": len(tally.failed)},
        "provenance": {"commit": commit(), "machine": machine()},
    }
    write_json(folder / "summary.json", summary)
    if not tally.failed:
        shutil.rmtree(folder / "work", ignore_errors=True)
    return Outcome(rows, summary, tally)
