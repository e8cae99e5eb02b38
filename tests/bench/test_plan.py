"""The bundled grids can be laid out, and say how large they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gift.bench.grid import GRIDS, bundled, read_grid
from gift.bench.plan import make_plan
from gift.errors import GiftError


@pytest.mark.parametrize("name", bundled())
def test_a_bundled_grid_can_be_laid_out_and_has_the_cells_that_it_names(name: str) -> None:
    grid = read_grid(name)
    cells = make_plan(grid.model_copy(update={"seeds": grid.seeds[:1]})).cells
    met = {(cell.concept, cell.method) for cell in cells}
    assert met >= {(concept, method.label) for concept in grid.concepts for method in grid.methods}
    told = re.search(r"([\d,]+) cells", (GRIDS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert told is None or int(told[1].replace(",", "")) == len(cells) * len(grid.seeds)


def test_a_bundled_grid_is_read_though_a_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after 'gift bench smoke --output smoke'; a file of that name is another grid."""
    monkeypatch.chdir(tmp_path)
    usual = read_grid("smoke")
    (tmp_path / "smoke").mkdir()
    assert read_grid("smoke") == usual
    (tmp_path / "mine").mkdir()
    with pytest.raises(GiftError, match="can't read the grid mine"):
        read_grid("mine")
    (tmp_path / "worst").write_text("{concepts: [owl], seeds: [7], methods: [esd], attacks: [lora]}")
    assert read_grid("worst").seeds == (7,)


@pytest.mark.parametrize(("concepts", "named"), [("'category:food', 'category : food'", "category:food"), ("owl, ' owl'", "owl")])
def test_a_concept_that_is_spelt_twice_is_told(concepts: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(f"{{concepts: [{concepts}], seeds: [0], methods: [esd], attacks: [lora]}}")
    with pytest.raises(GiftError, match=f"concepts lists '{named}' twice; give each once"):
        read_grid(tmp_path / "grid.yaml")
