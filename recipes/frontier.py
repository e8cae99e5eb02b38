"""`python -m recipes.frontier`: draws every setting behind the tables `frontier` of `docs/results.md`, resistance against price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Bbox

from gift.immunizers import IMMUNIZERS
from gift.report.frontier import Setting, front, settings_of
from gift.report.palette import KNOWN, SPARE
from gift.report.results import RECORDS, read_summary
from recipes.picture import STYLE, command, grids_of, svg

PAGE = Path("docs") / "results.md"
PICTURE = Path("docs") / "images" / "frontier.svg"
TITLES = {"castle+style:noto+category:vehicle": "three unseen concepts"}
"""Panels of several concepts; one of a single concept is called by it."""
OURS = ("gift", "esd+gift")
SIDES = [
    (dx, dy, {-1: "right", 0: "center", 1: "left"}[dx], {-1: "top", 0: "center", 1: "bottom"}[dy])
    for dx, dy in [(1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 1), (-1, 0), (-1, -1)]
]
"""Where a name can stand beside its point, and how it is aligned there."""
OUTSIDE = SIDES[5:] + SIDES[:5]
"""The same, beginning on the frontier's outer side."""
FAR = (5, 10, 16, 24)
"""How far, in points; of equally free places the nearest is taken, and a line leads there from those that are not beside it."""
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "color": "#7d8590", "shrinkA": 0, "shrinkB": 3}


def named(setting: Setting) -> bool:
    """Whether it is a method, or a chain of them, with its defaults."""
    return set(setting.method.split("+")) <= set(IMMUNIZERS)


def colour_of(setting: Setting) -> str:
    """GIFT in any chain and under any options in its colour, else that of the chain's last method, where that has one."""
    last = "gift" if "gift" in setting.chain else ("none", *setting.chain)[-1]
    return KNOWN.get(last, SPARE[0]).colour


def panel(axes: Axes, settings: Sequence[Setting]) -> None:
    """Draws settings as points, those with options pale, and steps along the frontier, whose points are ringed."""
    best = front(settings)
    axes.step([s.fid for s in best], [s.reduction for s in best], where="post", color="#7d8590", linewidth=1, zorder=1)
    for s in settings:
        ours, told, ring = s.method in OURS, named(s) or s in best, 0.9 if s in best else 0.0
        shown = axes.scatter(s.fid, s.reduction, s=90 if ours else 34, marker="*" if ours else "o", color=colour_of(s))
        shown.set(alpha=1 if told else 0.35, zorder=3 if told else 2, linewidths=ring, edgecolors="#24292f")
    axes.axhline(0, color="#7d8590", linewidth=0.6, linestyle=":")
    most, (low, high) = max(s.fid for s in settings), axes.get_ylim()
    axes.set(xlabel="FID (price)", xlim=(-0.15 * most, 1.2 * most), ylim=(low, high + (high - low) / 12))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def write_names(axes: Axes, settings: Sequence[Setting]) -> None:
    """Names the points on the frontier and the methods with their defaults, where each name covers least of what is there already.

    The panel needs to have its final place and limits.
    """
    best, inside = front(settings), axes.get_window_extent()
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in dots(axes, settings)]
    for (left, low), (right, high) in pairwise(dots(axes, best)):
        taken += [Bbox.from_bounds(left, low - 1, right - left, 2), Bbox.from_bounds(right - 1, low, 2, high - low)]
    for s in [*best, *(s for s in settings if named(s) and s not in best)]:
        at, name = (s.fid, s.reduction), "\n".join(wrap(s.method, 20))
        text = axes.annotate(name, at, (0, 0), textcoords="offset points", fontsize=7)
        tries: list[tuple[float, dict[str, Any], Bbox]] = []
        for far in FAR:
            for dx, dy, across, up in OUTSIDE if s in best else SIDES:
                spot: dict[str, Any] = {"position": (dx * far, dy * far), "horizontalalignment": across, "verticalalignment": up}
                text.set(**spot)
                box = text.get_window_extent()
                hidden = sum(area(box, other) for other in taken) + area(box, box) - area(box, inside)
                tries.append((hidden, spot, box))
        _, spot, box = min(tries, key=lambda each: each[0])  # the first of equally free ones
        text.set(**spot)
        taken.append(box)
        if max(map(abs, spot["position"])) > FAR[0]:
            axes.annotate("", at, spot["position"], textcoords="offset points", arrowprops=LEADER)


def dots(axes: Axes, settings: Sequence[Setting]) -> list[tuple[float, float]]:
    """Where the points of settings are, in pixels."""
    return [tuple(axes.transData.transform((s.fid, s.reduction))) for s in settings]


def area(box: Bbox, other: Bbox) -> float:
    """How much two boxes share, in square pixels."""
    shared = Bbox.intersection(box, other)
    return float(shared.width * shared.height) if shared else 0.0


def draw(panels: Mapping[str, Sequence[Setting]]) -> str:
    """The SVG, a panel a title."""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(panels), 5))
        FigureCanvasAgg(figure)  # which measures the names
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, settings) in zip(places, panels.items(), strict=True):
            panel(axes, settings)
            axes.set_title(title)
        places[0].set_ylabel("relearning reduction")
        figure.tight_layout()
        for axes, settings in zip(places, panels.values(), strict=True):
            write_names(axes, settings)
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
