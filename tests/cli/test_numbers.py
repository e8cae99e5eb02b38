"""Broken weights, too little memory and blank pictures, as the command line tells of them (field failures 15, 18, 19, 21)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from gift.cli.main import app
from gift.models.base import DenoisingModel
from gift.models.sd import StableDiffusion

FEW = {"pictures": 2, "evaluation_pictures": 2}
UNET = Path("unet", "diffusion_pytorch_model.safetensors")


@pytest.fixture
def here(art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for small settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "attack.yaml").write_text(yaml.safe_dump({"model": art_model, "concept": "ant", "steps": 2, **FEW}))
    look = {"model": art_model, "concept": "ant", "original": art_model, "pictures": 2, "safe_pictures": 4}
    (tmp_path / "look.yaml").write_text(yaml.safe_dump({**look, "neighbour_pictures": 0, "redraw": False}))
    return tmp_path


def told(code: int, *arguments: str) -> str:
    """The one line that a refused command says."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("gift: ")]
    assert "Traceback" not in done.output
    return line


@pytest.mark.parametrize(
    "verb",
    [
        ["evaluate", "--concept", "ant", "--output", "out"],
        ["generate", "--prompt", "an ant", "--output", "out.png"],
        ["attack", "--concept", "ant", "--output", "out"],
        ["immunize", "--concept", "ant", "--method", "none", "--output", "out"],
    ],
    ids=lambda verb: verb[0],
)
def test_a_model_with_nan_in_its_weights_is_refused(here: Path, art_model: str, verb: list[str]) -> None:
    weights = load_file(Path(art_model) / UNET)
    weights["conv_out.bias"][0] = float("nan")
    save_file(weights, Path(art_model) / UNET, metadata={"format": "pt"})
    before = set(here.rglob("*"))
    line = told(3, verb[0], art_model, *verb[1:])
    assert "unet.conv_out.bias holds NaN or infinite values; get it again" in line
    assert set(here.rglob("*")) == before


def no_room(monkeypatch: pytest.MonkeyPatch, kind: type[Any], name: str, error: Exception) -> None:
    """Has memory give out in a method."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(kind, name, fail)


def test_an_attack_whose_pictures_do_not_fit_is_saved_without_a_score(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room(monkeypatch, StableDiffusion, "sample_latents", torch.OutOfMemoryError("CUDA out of memory."))
    done = CliRunner().invoke(app, ["attack", "--config", "attack.yaml", "--output", "out"])
    assert done.exit_code == 0, done.output
    assert "warning: no score at step 2: not enough memory to draw pictures, even one at a time" in done.stderr
    assert "note: no score at step 0, 2: not enough memory to draw there" in done.stdout
    record = json.loads((here / "out" / "attack.json").read_text())
    assert (record["curve"], len(record["losses"])) == ([], 2)
    assert load_file(here / "out" / "weights" / "pytorch_lora_weights.safetensors")


@pytest.mark.parametrize(("kind", "name"), [(StableDiffusion, "sample_latents"), (StableDiffusion, "decode")])
def test_an_evaluation_that_does_not_fit_is_told(here: Path, kind: type[Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room(monkeypatch, kind, name, MemoryError())
    line = told(4, "evaluate", "--config", "look.yaml", "--output", "out")
    assert "not enough memory to draw pictures, even one at a time (MemoryError); " in line
    assert not (here / "out").exists()


def test_a_training_that_does_not_fit_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room(monkeypatch, DenoisingModel, "mean_loss", RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    line = told(4, "attack", "--config", "attack.yaml", "--output", "out")
    assert "not enough memory for this (DefaultCPUAllocator" in line
    assert "; train with --accumulate, --gradient-checkpointing or a smaller batch_size" in line


def test_blank_pictures_of_a_model_are_told_as_a_collapse(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    decode = StableDiffusion.decode

    def black(self: StableDiffusion, latents: torch.Tensor) -> torch.Tensor:
        drawn.append(len(latents))
        pictures = decode(self, latents)
        return pictures if len(drawn) in {2, 4} else 0 * pictures  # the model and its original draw by turns

    monkeypatch.setattr(StableDiffusion, "decode", black)
    done = CliRunner().invoke(app, ["evaluate", "--config", "look.yaml", "--output", "out"])
    assert done.exit_code == 0, done.output
    assert drawn == [4, 4, 2, 2]
    flags = json.loads((here / "out" / "evaluation.json").read_text())["flags"]
    assert flags == [
        "collapsed: 100 % of pictures are constant",
        "2 of 2 pictures of 'ant' are one single colour: they show nothing of it",
    ]
    assert all(f"note: {flag}" in done.stdout for flag in flags)
    drawn[:] = [0]  # now it is the original that draws nothing
    done = CliRunner().invoke(app, ["evaluate", "--config", "look.yaml", "--output", "out"])
    assert "4 of 4 pictures of the original are one single colour" in done.stdout
