"""Writes the report page of one demonstration: one file, nothing loaded from elsewhere."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from gift.bench.record import Result, Row, load
from gift.files import write_text
from gift.report import site, words
from gift.report.palette import HALFWAY, looks, swatch
from gift.report.pictures import blocks
from gift.report.plots import price, recovery


@dataclass(frozen=True)
class Flagged:
    """One flag, what it means, and where it was raised."""

    text: str
    meaning: str | None
    places: list[str]


def _flags(result: Result) -> list[Flagged]:
    """Every distinct flag of methods and rows, in the order of the record."""
    places: dict[str, list[str]] = {}
    for method in result.methods:
        for flag in method.flags:
            places.setdefault(flag, []).append(method.title)
    for row in result.ordered():
        for flag in row.flags:
            places.setdefault(flag, []).append(f"{result.title(row.method)} under {result.attack_title(row.attack)}")
    every = {f"{m.title} under {a.title}" for m in result.methods for a in result.attacks if result.row(m.method, a.attack)}
    return [
        Flagged(flag, words.explain(flag), ["every cell"] if set(where) >= every else list(dict.fromkeys(where)))
        for flag, where in places.items()
    ]


def _table(result: Result) -> list[dict[str, Any]]:
    """The rows, attack by attack, with what the template needs to show each."""

    def cells(row: Row) -> dict[str, Any]:
        return {
            "row": row,
            "title": result.title(row.method),
            "verdict": words.verdict(result, row),
            "steps": words.steps(row),
        }

    groups = [(attack, [cells(row) for row in result.ordered() if row.attack == attack.attack]) for attack in result.attacks]
    return [{"attack": attack, "cells": rows} for attack, rows in groups if rows]


def _charts(result: Result) -> tuple[list[dict[str, Any]], dict[str, go.Figure]]:
    """For each attack: element ids, a spoken description, the numbers as a table; and all figures by id."""
    charts: list[dict[str, Any]] = []
    figures: dict[str, go.Figure] = {}
    for place, group in enumerate(_table(result)):
        attack, rows = group["attack"], [cell["row"] for cell in group["cells"]]
        ends = "; ".join(f"{result.title(r.method)} {words.number(r.score_before)} to {words.number(r.score_after)}" for r in rows)
        moments = sorted({step for row in rows for step, _ in row.curve})
        chart = {
            "attack": attack,
            "curve": f"curve-{place}",
            "price": f"price-{place}",
            "spoken": f"Concept score from before to after {attack.title}: {ends}.",
            "moments": moments,
            "lines": [
                (result.title(r.method), r.method, [words.number(dict(r.curve).get(step)) for step in moments]) for r in rows
            ],
            "inconclusive": not attack.control_recovers,
        }
        charts.append(chart)
        figures[chart["curve"]] = recovery(result, attack.attack)
        figures[chart["price"]] = price(result, attack.attack)
    return charts, figures


def render(folder: Path) -> str:
    """The page of the record in `folder`, as HTML. The same record and pictures give the same text.

    Raises:
        GiftError: the record or a picture that it names is missing or malformed.
    """
    result = load(folder)
    charts, figures = _charts(result)
    return site.render(
        "report.html.j2",
        figures,
        styles=["report.css"],
        scripts=["report.js"],
        result=result,
        control=words.control_sentence(result),
        summary=words.summary(result),
        swatches={name: swatch(look) for name, look in looks([m.method for m in result.methods]).items()},
        halfway=HALFWAY,
        table=_table(result),
        charts=charts,
        pictures=[(method, blocks(folder, result, method)) for method in result.methods],
        flags=_flags(result),
        each=words.pictures_per_score(result),
        real={method.method: method.real.fid for method in result.methods if method.real},
        command=f"gift demo --concept {shlex.quote(result.concept)} --seed {result.seed}",
    )


def write_page(folder: Path) -> Path:
    """Writes `folder/report/index.html` from `folder/result.json` and the pictures beside it.

    Args:
        folder: where a demonstration was written.

    Returns:
        The page's path.

    Raises:
        GiftError: the record or a picture that it names is missing or malformed, or the page can't be written.
    """
    path = folder / site.PAGE
    write_text(path, render(folder))
    return path
