"""`python -m gift.report.results`: writes the tables of `PAGES` anew from the records in `docs/results/`.

A table stands between `<!-- table: KIND GRID -->` and `<!-- end -->`, GRID being a folder in `docs/results/` with a grid's
`records.jsonl`, or several with `+` between, parts of one grid that were computed apart; `limit` takes the curves of twins that
never saw their concepts instead. All else is text and stays.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gift.bench.grid_record import NAME, REMEDY, WRITER
from gift.bench.reading import parse, read_checked
from gift.bench.summary import summarise
from gift.errors import GiftError
from gift.files import write_text
from gift.report.tables import KINDS, Summary, limit

PAGES = (Path("README.md"), Path("docs") / "results.md", Path("docs") / "tuning.md")
RECORDS = Path("docs") / "results"
BLOCK = re.compile(r"(<!-- table: (?P<kind>[\w-]+) (?P<grid>[\w.+-]+) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)

FOUND = ("attack_found", "pictures_found")
CELL = ("model_identity", "concept", "seed", "method", "attack")
"""What tells a grid's cells apart."""

WITHOUT_EFFECT = {
    "safe_factor": 1,
    "empty_share": 0.0,
    "varied_share": 0.0,
    "varied_concept": 0.0,
    "other_words": 0.0,
    "falling_share": 0.0,
    "fading_share": 0.0,
    "spare": 0.0,
    "text_encoder": 0.0,
    "replay": 0.0,
    "lora_optimisers": [],
    "attacked_share": 1.0,
    "shares": [1.0, 1.0],
    "sgd_rates": None,
}
"""Of options that records of an earlier version do not know, the value at which a method is as it was then."""


def _with_effect(told: dict[str, Any]) -> dict[str, Any]:
    """Options that do something, and so inside options that hold others."""
    kept = {option: value for option, value in told.items() if option not in WITHOUT_EFFECT or value != WITHOUT_EFFECT[option]}
    return {option: _with_effect(value) if isinstance(value, dict) else value for option, value in kept.items()}


def _settings(row: dict[str, Any]) -> dict[str, Any]:
    """A record's settings without options that have no effect, so that an earlier version's are like those of today."""
    methods = {name: _with_effect(told) for name, told in row["settings"]["methods"].items()}
    return {**row["settings"], "methods": methods}


def read_summary(*folders: Path) -> Summary:
    """The summary of a grid, computed from the records of its parts, and its rows; a cell that several parts have counts once.

    Raises:
        GiftError: there are no records, they can't be used, or two parts have a cell under other settings.
    """

    def rows_of(text: str) -> list[dict[str, Any]]:
        return [parse(line) for line in text.splitlines() if line.strip()]

    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    file = folders[0] / NAME
    try:
        for file in (folder / NAME for folder in folders):
            for row in read_checked(file, rows_of, writer=WRITER, remedy=REMEDY):
                kept = rows.setdefault(tuple(row[name] for name in CELL), row)
                if _settings(kept) != _settings(row) or any(kept.get(name) != row.get(name) for name in FOUND):
                    raise GiftError(f"{file}: {row['method']} under {row['attack']} has other settings than in another part")
        _of_one_kind(rows.values())
        return {**summarise(list(rows.values())), "rows": list(rows.values())}
    except (KeyError, TypeError, IndexError) as error:
        raise GiftError(f"{file} is malformed ({type(error).__name__}: {error}); {REMEDY}") from error


def _of_one_kind(rows: Iterable[dict[str, Any]]) -> None:
    """Verifies that what a table's row is a mean of was done in one way: for concepts of one kind a method has the
    same options, control and number of steps.

    Raises:
        GiftError: it means two things.
    """
    seen: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        told = _settings(row)
        how = {"methods": told["methods"], "control": told["control"], "horizon": told["horizon"]}
        kind = row["concept"].partition(":")[0] if ":" in row["concept"] else "object"
        if seen.setdefault((row["method"], row["attack"], kind), how) != how:
            raise GiftError(f"{row['method']} under {row['attack']} means two things in these parts; give each a name of its own")


def filled(page: Path, records: Path) -> str:
    """The page's text with every table made anew.

    Args:
        page: Markdown.
        records: the folder in which the grids' folders are.

    Raises:
        GiftError: the page or records can't be read, or a table is of no known kind.
    """
    text = read_checked(page, str, writer="this command", remedy="name the page")
    kept: dict[str, Summary] = {}

    def make(found: re.Match[str]) -> str:
        kind, grid = found["kind"], found["grid"]
        if kind == "limit":
            return found[1] + limit() + found[5]
        if kind not in KINDS:
            raise GiftError(f"{page}: no table '{kind}'; known: limit, {', '.join(KINDS)}")
        if grid not in kept:
            kept[grid] = read_summary(*(records / part for part in grid.split("+")))
        return found[1] + KINDS[kind](kept[grid]) + found[5]

    return BLOCK.sub(make, text)


def main() -> None:
    """Writes the tables, or says whether they are those of the records."""
    parser = argparse.ArgumentParser(
        prog="python -m gift.report.results", description="Writes the tables of pages of results anew from the grids' records."
    )
    parser.add_argument("pages", type=Path, nargs="*", default=PAGES)
    parser.add_argument("--records", type=Path, default=RECORDS, help=f"the folder of the grids' folders (default: {RECORDS})")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 2 if a table is not that of its records")
    given = parser.parse_args()
    try:
        texts = {page: filled(page, given.records) for page in given.pages}
        for page, text in texts.items():
            if not given.check:
                write_text(page, text)
            elif text != page.read_text(encoding="utf-8"):
                raise GiftError(f"tables of {page} differ from their records; run 'python -m gift.report.results'")
    except GiftError as error:
        print(f"gift: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print("\n".join(found["table"] for text in texts.values() for found in BLOCK.finditer(text)), end="")


if __name__ == "__main__":
    main()
