"""Writes the page of a grid, from its records alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from gift.bench.grid_record import Measured, Records, load
from gift.bench.summary import LEAST_SAFE
from gift.files import write_text
from gift.report import grid_plots, grid_words, site
from gift.report.grid_pictures import albums
from gift.report.grid_views import Group, Scope, scopes
from gift.report.palette import HALFWAY, Look, looks, swatch
from gift.report.words import number


@dataclass(frozen=True)
class Chart:
    """The charts of one attack on one model. `moments` and `lines` are the curves as a table, with their scope's title."""

    model: str
    attack: str
    curve: str
    cost: str
    spoken: str
    moments: list[int]
    lines: list[tuple[Group, str, list[str]]]
    void: bool


def _looks(records: Records) -> dict[str, Look]:
    """A look for each method, by its name or by the last method of its chain."""
    last = {cell.method: ["none", *cell.settings.methods][-1] for cell in records.cells}
    return looks(records.methods, last)


def _blocks(records: Records, every: Sequence[Scope]) -> list[tuple[str, list[Group]]]:
    """Groups of one scope, model and attack with the scope's title, methods in the grid's order."""
    blocks = []
    for scope in every:
        for model in records.models:
            for attack in records.attacks:
                mine = [group for group in scope.groups if (group.model, group.attack) == (model, attack)]
                blocks += [(scope.title, mine)] if mine else []
    return blocks


def _charts(
    records: Records, groups: Sequence[tuple[Group, str]], drawn: dict[str, Look]
) -> tuple[list[Chart], dict[str, go.Figure]]:
    """Recovery and cost of every model and attack, and their figures by element id."""
    charts: list[Chart] = []
    figures: dict[str, go.Figure] = {}
    for model in records.models:
        for attack in records.attacks:
            mine = [(group, title) for group, title in groups if (group.model, group.attack) == (model, attack) and group.line]
            if not mine:
                continue
            moments = sorted({point.step for group, _ in mine for point in group.line})
            ends = [f"{g.method} {number(g.line[0].mean)} to {number(g.line[-1].mean)}" for g, _ in mine if not g.scope]
            chart = Chart(
                model=model,
                attack=attack,
                curve=f"curve-{len(charts)}",
                cost=f"cost-{len(charts)}",
                spoken=f"Mean concept score from before to after {attack}, {mine[0][1]}: {'; '.join(ends)}.",
                moments=moments,
                lines=[(group, title, _cells(group, moments)) for group, title in mine],
                void=not any(group.conclusive for group, _ in mine),
            )
            charts.append(chart)
            plotted = [group for group, _ in mine]
            figures[chart.curve] = grid_plots.recovery(plotted, drawn, records.summary.grid.control)
            figures[chart.cost] = grid_plots.cost(plotted, drawn)
    return charts, figures


def _once(groups: Sequence[tuple[Group, str]], has: Callable[[Measured], object]) -> list[Group]:
    """A group of each method of which some cell has something that was measured without any attack: any attack's group says it."""
    mine: dict[tuple[str, str, str], Group] = {}
    for group, _ in groups:
        if any(has(row) for row in group.counted):
            key = group.scope, group.model, group.method
            mine[key] = max(mine.get(key, group), group, key=lambda one: len(one.counted))
    return list(mine.values())


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _cells(group: Group, moments: Sequence[int]) -> list[str]:
    """A curve's numbers for a table row."""
    points = {point.step: point for point in group.line}
    return [grid_plots.span(points[step]) if step in points else number(None) for step in moments]


def _settings(records: Records) -> list[tuple[str, dict[str, Any]]]:
    """Hyperparameters by method and by attack; a searched attack has those that were found, cell by cell."""
    methods = {cell.method: dict(cell.settings.methods) for cell in records.cells}
    attacks: dict[str, dict[str, Any]] = {}
    for cell in records.measured:
        if cell.attack_found is not None:
            place = f"{cell.method}, {cell.concept}, seed {cell.seed}" + (f", {cell.model}" if len(records.models) > 1 else "")
            told = {"pictures": cell.pictures_found} if cell.pictures_found else {}
            attacks.setdefault(cell.attack, {})[place] = cell.attack_found | told
    attacks |= {cell.attack: cell.settings.attack for cell in records.cells if cell.attack not in attacks}
    return [*methods.items(), *((name, attacks[name]) for name in records.attacks)]


def render(folder: Path) -> str:
    """The page of the records in `folder`, as HTML. The same records and pictures give the same text.

    Raises:
        GiftError: a record or a picture that it names is missing or malformed.
    """
    records = load(folder)
    every = scopes(records)
    blocks = _blocks(records, every)
    groups = [(group, title) for title, mine in blocks for group in mine]
    drawn = _looks(records)
    charts, figures = _charts(records, groups, drawn)
    prices = []
    for place, model in enumerate(records.models):
        mine = [group for group, _ in groups if group.model == model]
        ids = {price: f"{price.replace('_', '-')}-{place}" for price in grid_plots.FIDELITY}
        figures |= {ids[price]: grid_plots.fidelity(mine, drawn, price) for price in ids}
        prices.append((model, list(ids.items()), any(group.conclusive for group in mine)))
    shown, left_out = albums(records)
    several = len(records.models) > 1
    return site.render(
        "grid.html.j2",
        figures,
        styles=["report.css", "grid.css"],
        scripts=["grid.js"],
        records=records,
        plain=[cell.method for cell in records.cells if not cell.settings.methods][:1],
        compared=grid_words.compared(records),
        control=grid_words.control_sentence(records),
        leaders=[
            *(grid_words.ranking_sentence(model, order, several) for model, order in every[0].summary["ranking"].items()),
            *grid_words.limit_sentences(every[0].summary),
        ],
        several=several,
        least_safe=LEAST_SAFE,
        scopes=every,
        blocks=blocks,
        words=grid_words,
        swatches={name: swatch(look) for name, look in drawn.items()},
        halfway=HALFWAY,
        charts=charts,
        prices=prices,
        places=_distinct(where for cell in records.measured for where in cell.adaptability),
        adaptable=_once(groups, lambda row: row.adaptability),
        embedders={key: found.name for cell in records.measured for key, found in cell.similarity.items()},
        moved=_once(groups, lambda row: row.similarity or row.price.neighbours),
        left=any(group.means["safe_after"] for group, _ in groups),
        real=any(group.means["real_fid"] for group, _ in groups),
        tries=sorted({n for group, _ in groups for n in group.best_of}, key=int),
        albums=shown,
        left_out=left_out,
        flags=grid_words.flags(records, every[0]),
        limits=grid_words.limits(records),
        settings=_settings(records),
    )


def write_grid_page(folder: Path) -> Path:
    """Writes `folder/report/index.html` from the records and pictures of a grid.

    Args:
        folder: where a grid was written.

    Returns:
        The page's path.

    Raises:
        GiftError: a record or a picture that it names is missing or malformed, or the page can't be written.
    """
    path = folder / site.PAGE
    write_text(path, render(folder))
    return path
