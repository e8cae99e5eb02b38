"""Mistakes that show only once a model or a folder is opened: still one line, and nothing written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from gift.cli.main import app

CONFIGS: dict[str, Any] = {
    "options.yaml": {"concept": "mushroom", "options": 3},
    "type.yaml": {"concept": "mushroom", "concept_pictures": "many"},
    "negative.yaml": {"concept": "mushroom", "seed": -1},
    "huge.yaml": {"concept": "mushroom", "seed": 2**40},
    "date.yaml": "concept: 2020-13-45\n",
    "binary.yaml": "\udcff",
}
TABLE = [
    (["immunize", "MODEL", "--concept", "mushrom"], "did you mean mushroom"),
    (["immunize", "MODEL", "--concept", "style:nto"], "did you mean noto"),
    (["immunize", "MODEL", "--concept", " "], "concept is empty"),
    (["immunize", "MODEL", "--concept", "ant", "--concept-images", "none"], "0 images in none"),
    (["immunize", "MODEL", "--concept", "ant", "--safe-images", "bad"], "1 pictures in bad can't be used"),
    (["immunize", "MODEL", "--concept", "ant", "--concept-images", "a.yaml"], "not a folder"),
    (["immunize", "MODEL", "--config", "options.yaml", "--set", "steps=1"], "options: 3"),
    (["immunize", "MODEL", "--config", "options.yaml"], "options"),
    (["immunize", "MODEL", "--config", "type.yaml"], "concept_pictures"),
    (["immunize", "MODEL", "--config", "negative.yaml"], "seed"),
    (["immunize", "MODEL", "--config", "huge.yaml"], "seed"),
    (["immunize", "MODEL", "--config", "date.yaml"], "is not YAML"),
    (["immunize", "MODEL", "--config", "binary.yaml"], "can't read"),
    (["immunize", "MODEL", "--config", "none"], "can't read"),
    (["immunize", "MODEL", "--concept", "ant", "--set", "a.b=1", "--set", "a=._", "--set", "a.c=1"], "'a'"),
    (["attack", "MODEL", "--concept", "mushrom"], "did you mean mushroom"),
    (["attack", "MODEL", "--concept", "ant", "--concept-images", "none"], "0 images in none"),
    (["attack", "MODEL", "--concept", "ant", "--set", "steps=-1"], "steps"),
    (["evaluate", "MODEL", "--concept", "mushrom", "--original", "MODEL"], "did you mean mushroom"),
    (["evaluate", "MODEL", "--concept", "ant", "--original", "nowhere"], "no model 'nowhere'"),
    (["evaluate", "MODEL", "--concept", "ant", "--original", "MODEL", "--lora", "none"], "pytorch_lora_weights"),
    (["evaluate", "MODEL", "--concept", "ant", "--original", "MODEL", "--similarity", "clop"], "known: bundled, bundled-lpips"),
    (["evaluate", "MODEL", "--concept", "ant", "--original", "MODEL", "--similarity", "clip:none"], "clip"),
    (["demo", "--config", "demo.yaml", "--concept", "mushrom"], "did you mean mushroom"),
    (["card", "MODEL", "--license", "my own"], "not a licence id"),
    (["card", "MODEL", "--evidence", "none"], "holds neither result.json nor records.jsonl"),
]


@pytest.fixture
def here(art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    configs = {**CONFIGS, "demo.yaml": {"model": art_model}, "a.yaml": {}}
    for name, value in configs.items():
        text = value if isinstance(value, str) else yaml.safe_dump(value)
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(("arguments", "says"), TABLE, ids=[" ".join(row[0]) for row in TABLE])
def test_one_line_and_nothing_written(here: Path, art_model: str, arguments: list[str], says: str) -> None:
    before = listed(here)
    done = CliRunner().invoke(app, [*(art_model if a == "MODEL" else a for a in arguments), "--output", "out"])
    assert done.exit_code == 2, done.output
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert [line[:6] for line in lines] == ["gift: "], done.stderr
    assert says in lines[0]
    assert "Traceback" not in done.output
    assert listed(here) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_cannot_be_written_is_told(here: Path, art_model: str) -> None:
    here.chmod(0o500)
    try:
        done = CliRunner().invoke(app, ["immunize", art_model, "--concept", "ant", "--output", "out"])
    finally:
        here.chmod(0o700)
    assert done.exit_code == 2
    assert "can't write to out" in done.stderr


@pytest.mark.parametrize(
    "option",
    [["--seed", "-1"], ["--seed", str(2**70)], ["--steps", "0"], ["--steps", "5000"], ["--count", "0"], ["--guidance", "x"]],
)
def test_numbers_out_of_range_are_usage_errors(here: Path, art_model: str, option: list[str]) -> None:
    before = listed(here)
    done = CliRunner().invoke(app, ["generate", art_model, "--prompt", "an ant", *option])
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert listed(here) == before


@pytest.mark.parametrize("steps", [["--steps", "2"], ["--set", "steps=2"], ["--steps", "9", "--set", "steps=2"]])
def test_an_attacks_steps_may_be_given_either_way(here: Path, art_model: str, steps: list[str]) -> None:
    (here / "run.yaml").write_text(yaml.safe_dump({"pictures": 2, "evaluation_pictures": 2}))
    arguments = ["attack", art_model, "--concept", "ant", "--config", "run.yaml", *steps, "--set", "rate=1e-5", "--output", "out"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    record = json.loads((here / "out" / "attack.json").read_text())
    assert [step for step, _ in record["curve"]] == [0, 2]
    assert record["config"]["options"] == {"rate": 1e-5}
    again = CliRunner().invoke(app, ["attack", "--config", "out/config.yaml", "--output", "again"])
    assert again.exit_code == 0, again.output
    assert json.loads((here / "again" / "attack.json").read_text())["losses"] == record["losses"]


def test_evaluate_writes_its_scores_and_its_configuration(here: Path, art_model: str) -> None:
    (here / "run.yaml").write_text(yaml.safe_dump({"pictures": 2, "safe_pictures": 4, "original": art_model}))
    done = CliRunner().invoke(app, ["evaluate", art_model, "--concept", "ant", "--config", "run.yaml", "--output", "out"])
    assert done.exit_code == 0, done.output
    result = json.loads((here / "out" / "evaluation.json").read_text())
    assert result["fid"] == pytest.approx(0, abs=1e-3)
    assert result["similarity"]["bundled"]["paired"] == pytest.approx(1, abs=1e-5)
    assert result["similarity"]["bundled"]["cmmd"] == pytest.approx(0, abs=1e-5)
    assert result["neighbours"]["score"] == result["neighbours"]["original_score"]
    assert len(result["neighbours"]["names"]) == 4
    assert "neighbours" in done.stdout
    assert "stand-in for CLIP" in done.stdout
    assert result["real"]["fid"] == result["real"]["original_fid"] > 0
    assert f"real FID  {result['real']['fid']:.4f}" in done.stdout
    assert result["redrawn"].keys() == {"fid", "kid"}
    assert f"other noise  {result['redrawn']['fid']:.4f}" in done.stdout
    assert len(result["concept_scores"]) == 2
    assert yaml.safe_load((here / "out" / "config.yaml").read_text())["seed"] == 0


def test_pictures_are_only_read(here: Path, art_model: str) -> None:
    Image.effect_noise((20, 20), 50).convert("RGB").save(here / "none" / "1.png")
    before = (here / "none" / "1.png").read_bytes()
    (here / "run.yaml").write_text(yaml.safe_dump({"evaluation_pictures": 2, "steps": 1}))
    arguments = ["attack", art_model, "--concept", "ant", "--config", "run.yaml", "--concept-images", "none", "--output", "out"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert {path.name: path.read_bytes() for path in (here / "none").iterdir()} == {"1.png": before}
