"""`python -m recipes.frontier`: draws every setting behind the tables `frontier` of `docs/results.md`, resistance against price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gift.immunizers import IMMUNIZERS
from gift.report.frontier import Setting, front, settings_of
from gift.report.palette import looks
from gift.report.results import RECORDS, read_summary
from recipes.picture import STYLE, command, grids_of, svg

PAGE = Path("docs") / "results.md"
PICTURE = Path("docs") / "images" / "frontier.svg"
TITLES = {"castle+style:noto+category:vehicle": "three unseen concepts"}
"""Panels of several concepts; one of a single concept is called by it."""
OURS = ("gift", "esd+gift")


def panel(axes: Axes, settings: Sequence[Setting]) -> None:
    """Draws settings as points, methods in their own colours, their other options pale, and steps along the frontier."""
    named = [s.method for s in settings if set(s.method.split("+")) <= set(IMMUNIZERS)]
    found = looks(named, {method: method.split("+")[-1] for method in named})
    kin = {s.chain: found[s.method].colour for s in settings if s.method in found}
    best, span = front(settings), max(s.reduction for s in settings) - min(s.reduction for s in settings)
    axes.step([s.fid for s in best], [s.reduction for s in best], where="post", color="#7d8590", linewidth=1, zorder=1)
    free = -math.inf  # the labels on the frontier's outer side don't cover each other
    for s in settings:
        ours, told = s.method in OURS, s.method in found or s in best
        colour, size, marker = kin.get(s.chain, "#7d8590"), 90 if ours else 34, "*" if ours else "o"
        shown = axes.scatter(s.fid, s.reduction, s=size, marker=marker, color=colour, linewidths=0)
        shown.set(alpha=1 if told else 0.45, zorder=3 if ours else 2)
        if s in best:
            lines, free = wrap(s.method, 20), max(s.reduction + span / 60, free)
            axes.text(s.fid - 0.8, free, "\n".join(lines), fontsize=7, horizontalalignment="right", verticalalignment="bottom")
            free += len(lines) * span / 24
        elif told:
            axes.text(s.fid + 0.8, s.reduction - span / 40, s.method, fontsize=7)
    axes.axhline(0, color="#7d8590", linewidth=0.6, linestyle=":")
    most = max(s.fid for s in settings)
    axes.set(xlabel="FID (price)", xlim=(-0.2 * most, 1.25 * most))
    axes.set_ylim(top=max(axes.get_ylim()[1], free))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw(panels: Mapping[str, Sequence[Setting]]) -> str:
    """The SVG, a panel a title."""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(panels), 4.4))
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, settings) in zip(places, panels.items(), strict=True):
            panel(axes, settings)
            axes.set_title(title)
        places[0].set_ylabel("relearning reduction")
        figure.tight_layout()
        return svg(figure, "Resistance against price")


def panels_of(page: Path, records: Path) -> dict[str, list[Setting]]:
    """The settings behind each table `frontier` of a page, by what they are about."""
    out = {}
    for grids in grids_of(page, "frontier"):
        summary = read_summary(*(records / grid for grid in grids))
        concepts = "+".join(dict.fromkeys(row["concept"] for row in summary["rows"]))
        out[TITLES.get(concepts, concepts)] = settings_of(summary)
    return out


def main() -> None:
    """Draws it."""
    command("frontier", "Draws resistance against price.", PICTURE, lambda: draw(panels_of(PAGE, RECORDS)))


if __name__ == "__main__":
    main()
