"""`python -m recipes.picture`: draws the recovery curves of grids' records, as README shows them.

The grids are those of README's first table `overall`, so that the picture and the table are of the same records.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from gift.files import write_text
from gift.report.grid_views import mean_curve
from gift.report.palette import looks
from gift.report.results import BLOCK, RECORDS, read_summary

PAGE = Path("README.md")
PICTURE = Path("docs") / "images" / "results.svg"
MARKERS = {"star": "*", "square": "s", "diamond": "D", "triangle-down": "v"}
LINES = {"solid": "-", "dot": ":"}
"""The palette's names of these methods' looks, as matplotlib calls them."""
TITLES = {"esd": "erased (ESD)", "esd+imma": "IMMA after ESD", "esd+pgu": "PGU after ESD", "esd+gift": "GIFT after ESD"}
"""The methods that are drawn, where the records have them, and what each is called."""
STYLE = {"svg.hashsalt": "gift", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}
Curve = list[tuple[int, float]]


def grids_of(page: Path, kind: str) -> list[list[str]]:
    """The folders of each of a page's tables of a kind."""
    tables = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [found["grid"].split("+") for found in tables if found["kind"] == kind]


def curves_of(rows: Sequence[Mapping[str, Any]], method: str, attack: str) -> list[Curve]:
    """The recovery curves of a method's cells that count."""
    mine = [row for row in rows if (row["method"], row["attack"], row["status"]) == (method, attack, "ok")]
    return [[(int(step), float(score)) for step, score in row["curve"]] for row in mine]


def draw(rows: Sequence[Mapping[str, Any]]) -> str:
    """The SVG of records of cells: a panel an attack, thin lines for single cells, thick ones for a method's mean."""
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    methods = [method for method in TITLES if any(curves_of(rows, method, attack) for attack in attacks)]
    last = {method: method.split("+")[-1] for method in methods}
    with rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(attacks), 3.2))
        panels = figure.subplots(1, len(attacks), sharey=True, squeeze=False)
        for panel, attack in zip(panels[0], attacks, strict=True):
            for method, look in looks(methods, last).items():
                curves = curves_of(rows, method, attack)
                if not curves:
                    continue
                for curve in curves:
                    panel.plot(*zip(*curve, strict=True), color=look.colour, linewidth=0.8, alpha=0.3)
                points = mean_curve(curves)
                panel.plot(
                    [point.step for point in points],
                    [point.mean for point in points],
                    color=look.colour,
                    linewidth=2.2,
                    linestyle=LINES[look.dash],
                    marker=MARKERS[look.symbol],
                    label=TITLES[method],
                )
            panel.set(title=attack, xlabel="attack step", ylim=(-0.03, 1.03))
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
        panels[0][0].set_ylabel("concept score")
        labels = {label: line for panel in panels[0] for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        figure.legend(labels.values(), labels.keys(), loc="lower center", ncols=len(methods), frameon=False)
        figure.tight_layout(rect=(0, 0.08, 1, 1))
        return svg(figure, "Recovery curves")


def svg(figure: Figure, title: str) -> str:
    """The figure's SVG, the same each time it is drawn in `STYLE`."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Title": title})
    return text.getvalue()


def command(recipe: str, about: str, picture: Path, made: Callable[[], str]) -> None:
    """The command line of a recipe that writes one picture."""
    parser = argparse.ArgumentParser(prog=f"python -m recipes.{recipe}", description=about)
    parser.add_argument("--output", type=Path, default=picture, help=f"the SVG (default: {picture})")
    given = parser.parse_args()
    write_text(given.output, made())
    print(given.output)


def main() -> None:
    """Draws it."""

    def made() -> str:
        grids, *_ = grids_of(PAGE, "overall")
        return draw(read_summary(*(RECORDS / grid for grid in grids))["rows"])

    command("picture", "Draws the recovery curves of README's table.", PICTURE, made)


if __name__ == "__main__":
    main()
