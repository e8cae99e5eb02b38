"""README's picture: it is of the records that README's table is of, and its thick lines are their means."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from gift.report.frontier import Setting
from gift.report.grid_views import mean_curve
from gift.report.results import RECORDS, read_summary
from recipes import frontier, picture

ROOT = Path(__file__).resolve().parents[1]


def cell(method: str, status: str = "ok", **scores: float) -> dict[str, Any]:
    curve = [[int(step.removeprefix("at")), score] for step, score in scores.items()]
    return {"method": method, "attack": "full", "status": status, "curve": curve}


def test_a_mean_is_over_the_cells_that_count_at_the_steps_that_all_have() -> None:
    rows = [cell("esd", at0=0.0, at10=0.5, at20=1.0), cell("esd", at0=0.5, at10=1.0), cell("esd", "collapsed", at0=1.0, at10=1.0)]
    points = mean_curve(picture.curves_of(rows, "esd", "full"))
    assert [(point.step, point.mean) for point in points] == [(0, 0.25), (10, 0.75)]


def test_methods_without_cells_that_count_are_left_out() -> None:
    drawn = picture.draw([cell("esd", at0=0.0, at10=0.5), cell("esd+imma", "collapsed", at0=0.0, at10=0.5)])
    assert "erased (ESD)" in drawn
    assert "IMMA" not in drawn
    assert "GIFT" not in drawn


def test_names_of_near_points_cover_neither_each_other_nor_a_point() -> None:
    methods = ["esd", "esd+gift", "gift", "pgu", "joint", "esd+joint", "esd+imma"]
    crowd = [Setting(m, tuple(m.split("+")), 10 + n % 3, 0.5 + n / 60, 0.9, None) for n, m in enumerate(methods)]
    crowd += [Setting("none", ("none",), 0, -0.5, 0.9, None), Setting("ascent", ("ascent",), 40, 1, 0.9, None)]
    figure = Figure(figsize=(4, 4))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    frontier.panel(axes, crowd)
    frontier.write_names(axes, crowd)
    texts = [text for text in axes.texts if text.get_text()]
    assert sorted(text.get_text() for text in texts) == sorted(s.method for s in crowd)
    dots = [Bbox.from_bounds(x - 2, y - 2, 4, 4) for x, y in frontier.dots(axes, crowd)]
    boxes = [text.get_window_extent() for text in texts] + dots
    assert not any(frontier.area(one, other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize("recipe", [picture, frontier])
def test_the_pictures_are_those_of_the_records(recipe: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["picture", "--output", str(tmp_path / "made.svg")])
    recipe.main()
    assert (tmp_path / "made.svg").read_text(encoding="utf-8") == recipe.PICTURE.read_text(encoding="utf-8")


def test_the_curves_are_of_erased_and_immunized_weights() -> None:
    grids, *_ = picture.grids_of(ROOT / picture.PAGE, "overall")
    rows = read_summary(*(ROOT / RECORDS / grid for grid in grids))["rows"]
    assert {"esd", "esd+gift"} <= {row["method"] for row in rows}
