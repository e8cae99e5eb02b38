"""`gift card` after the verbs that it follows: the card stands in a folder that the hub's libraries still open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from gift.cli.main import app
from gift.metrics.recogniser import load_recogniser
from gift.report.words import number
from tests.bench.small_grid import small_grid

CONCEPT = "category:animal"
SIZES = {"concept_pictures": 4, "safe_pictures": 4}


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def immunized(art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `gift immunize` wrote."""
    monkeypatch.chdir(tmp_path)
    config = {"model": art_model, "concept": CONCEPT, "method": "ascent", "options": {"steps": 1, "batch_size": 2}, **SIZES}
    (tmp_path / "immunize.yaml").write_text(yaml.safe_dump(config))
    run("immunize", "--config", "immunize.yaml", "--output", "out")
    return tmp_path / "out"


def test_a_card_without_evidence(immunized: Path, art_model: str) -> None:
    said = run("card", str(immunized / "model"), "--base-model", "someone/base", "--license", "mit")
    assert said == f"card in {immunized / 'model' / 'README.md'}\n"
    text = (immunized / "model" / "README.md").read_text(encoding="utf-8")
    assert ModelCard.load(immunized / "model" / "README.md").data["base_model"] == "someone/base"
    assert "Nothing was measured for this card." in text
    assert "1. **Ascent**" in text
    assert str(Path(art_model).parent) not in text
    StableDiffusionPipeline.from_pretrained(immunized / "model")


def test_a_second_card_needs_force_over_a_foreign_one(immunized: Path) -> None:
    (immunized / "model" / "README.md").write_text("mine")
    done = CliRunner().invoke(app, ["card", str(immunized)])
    assert done.exit_code == 2
    assert "was not written by gift" in done.stderr
    run("card", str(immunized), "--force")


@pytest.mark.slow
def test_a_card_with_a_grids_numbers(immunized: Path, art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gift.bench.workbench.load_recogniser", load_recogniser)  # a random one never finds the concept
    options = {"esd": {"steps": 2, "sampler_steps": 3}, "ascent": {"steps": 1, "batch_size": 2}}
    grid = small_grid(art_model, methods=["esd", "ascent"], method_options=options)
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    run("bench", "grid.yaml", "--output", "bench")
    run("card", "out", "--evidence", "bench", "--base-model", "someone/base")
    rows = [json.loads(line) for line in (tmp_path / "bench" / "records.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["method"] == "ascent"]
    text = (immunized / "model" / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {CONCEPT} | LoRA |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    scores = [row["original_score"], row["score_before"], row["score_after"], row["control_curve"][-1][1]]
    assert cells[2:7] == ["0", *map(number, scores)]
    assert cells[9:] == [number(row["price"]["safe_accuracy"]), number(row["price"]["fid"])]
    assert len(list((immunized / "model" / "card").iterdir())) == text.count("](card/") > 0
    StableDiffusionPipeline.from_pretrained(immunized / "model")
