"""The bundled grids can be laid out, and say how large they are."""

from __future__ import annotations

import re

import pytest

from gift.bench.grid import GRIDS, bundled, read_grid
from gift.bench.plan import make_plan


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_grid_can_be_laid_out_and_has_the_cells_that_it_names(name: str) -> None:
    grid = read_grid(name)
    cells = make_plan(grid.model_copy(update={"seeds": grid.seeds[:1]})).cells
    met = {(cell.concept, cell.method) for cell in cells}
    assert met >= {(concept, method.label) for concept in grid.concepts for method in grid.methods}
    told = re.search(r"([\d,]+) cells", (GRIDS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert told is None or int(told[1].replace(",", "")) == len(cells) * len(grid.seeds)
