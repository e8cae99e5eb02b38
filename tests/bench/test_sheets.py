"""The pictures of a grid: kept with each attack, the same however the grid was run, and none of another grid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from gift.bench.bench import run_grid
from gift.bench.grid import Grid
from gift.bench.plan import make_plan
from gift.bench.store import Store
from gift.cli.main import app
from gift.errors import Interrupted
from gift.files import write_bytes
from gift.training.progress import Silent
from tests.bench.small_grid import small_grid

Make = Callable[..., Grid]
METHODS = ["esd", "esd+imma"]


@pytest.fixture
def make(art_model: str, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes small grids of two methods that are scored by the bundled recogniser."""
    monkeypatch.undo()
    return lambda **changes: Grid(**small_grid(art_model, **{"methods": METHODS, **changes}))


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (*(folder / "pictures").iterdir(), folder / "pictures.json")}


def test_a_sheet_has_the_pictures_that_were_scored_and_one_seed_is_shown(make: Make, tmp_path: Path) -> None:
    grid = make(seeds=[3, 0])
    run_grid(grid, tmp_path)
    listed = json.loads((tmp_path / "pictures.json").read_text())
    assert [(sheet["seed"], sheet["method"], sheet["attack"]) for sheet in listed] == [(3, name, "lora") for name in METHODS]
    assert set(files(tmp_path)) == {"pictures.json", *(Path(sheet["file"]).name for sheet in listed)}
    plan, store = make_plan(grid), Store(tmp_path / "pieces")
    for sheet, cell in zip(listed, plan.cells, strict=False):
        assert sheet["steps"] == [0, 10, 11]
        assert len(set(zip(sheet["prompts"], sheet["seeds"], strict=True))) == 4
        score = store.find(cell.pieces["score"].kind, cell.pieces["score"].content)
        assert score is not None
        with Image.open(tmp_path / sheet["file"]) as picture:
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        assert pixels.shape == (3, 4 * sheet["size"], 3 * sheet["size"])
        before = pixels[:, :, : sheet["size"]].unflatten(1, (4, sheet["size"])).transpose(0, 1)
        assert torch.equal(before, score["images"][:4])
        assert not torch.equal(pixels[:, :, sheet["size"] : 2 * sheet["size"]], pixels[:, :, : sheet["size"]])


class Stop(Silent):
    """Ends a run at the 25th training step, within an attack."""

    left = 25

    def step(self, done: int, logs: object) -> None:
        self.left -= 1
        if not self.left:
            raise Interrupted("stop")


def test_a_stopped_grid_goes_on_to_the_same_pictures(make: Make, tmp_path: Path) -> None:
    run_grid(make(), tmp_path / "whole")
    with pytest.raises(Interrupted):
        run_grid(make(), tmp_path / "cut", reporter=Stop())
    assert not (tmp_path / "cut" / "pictures").exists()
    run_grid(make(), tmp_path / "cut")
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_sheets_of_another_grid_leave(make: Make, tmp_path: Path) -> None:
    run_grid(make(), tmp_path)
    kept = files(tmp_path)
    write_bytes(tmp_path / "pictures" / "old.png", b"")
    assert run_grid(make(), tmp_path).tally.computed == 0
    assert files(tmp_path) == kept
    assert run_grid(make(methods=["esd"]), tmp_path).tally.computed == 0
    listed: list[dict[str, Any]] = json.loads((tmp_path / "pictures.json").read_text())
    assert [sheet["method"] for sheet in listed] == ["esd"]
    assert len(files(tmp_path)) == 2


def test_the_command_writes_the_page_and_report_writes_it_again(make: Make, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(make().model_dump(mode="json")))
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["bench", str(tmp_path / "grid.yaml"), "--output", str(out), "--threads", "1"])
    assert done.exit_code == 0, done.output
    page = out / "report" / "index.html"
    assert f"page: {page}" in done.stdout
    made = page.read_bytes()
    assert made.count(b'<img src="data:image/png;base64,') == 2
    page.unlink()
    again = CliRunner().invoke(app, ["report", str(out)])
    assert again.exit_code == 0, again.output
    assert page.read_bytes() == made
