"""The verbs on a user's own Stable Diffusion folder and pictures; interruption of a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from gift.cli.main import app
from gift.models.sd import StableDiffusion

WEIGHTS = Path("model/unet/diffusion_pytorch_model.safetensors")


@pytest.fixture
def mine(random_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and two picture folders of a user's."""
    random_model.save(tmp_path / "my model")
    for folder, colour in (("concept", "red"), ("safe", "blue")):
        (tmp_path / folder).mkdir()
        for i in range(3):
            picture = Image.new("RGB", (20, 18), colour)
            picture.putpixel((i, i), (0, 255, 0))
            picture.save(tmp_path / folder / f"{i}.png")
            (tmp_path / folder / f"{i}.txt").write_text(f"{colour} {i}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def immunize(*more: str, settle: bool = False) -> list[str]:
    """With one step of settling, unless the method's own are wanted or it has none."""
    pictures = ["--concept-images", "concept", "--safe-images", "safe"]
    short = [] if settle else ["--set", "settle_steps=1"]
    return ["immunize", "my model", "--concept", "a red square", *pictures, *short, *more]


def test_immunize_with_the_users_own_model_and_pictures(mine: Path) -> None:
    done = CliRunner().invoke(app, immunize("--set", "steps=2", "--set", "attacker.steps=1", "--output", "out", "--seed", "3"))
    assert done.exit_code == 0, done.output
    assert "3 pictures" in done.stderr
    StableDiffusionPipeline.from_pretrained(mine / "out" / "model")
    record = json.loads((mine / "out" / "immunize.json").read_text())
    assert record["methods"][0]["arguments"]["steps"] == 2
    assert not list((mine / "out").glob("work/steps/*"))
    before = load_file(mine / "my model" / "unet" / WEIGHTS.name)
    after = load_file(mine / "out" / WEIGHTS)
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_options_reach_every_method_of_a_chain_and_go_over_the_files(mine: Path) -> None:
    config = {"method": "esd+ascent", "options": {"esd": {"steps": 9, "sampler_steps": 3}, "batch_size": 2}}
    (mine / "run.yaml").write_text(yaml.safe_dump(config))
    arguments = immunize("--config", "run.yaml", "--set", "esd.steps=2", "--set", "steps=1", "--output", "out", settle=True)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    esd, ascent = (part["arguments"] for part in json.loads((mine / "out" / "immunize.json").read_text())["methods"])
    assert (esd["steps"], esd["sampler_steps"], esd["batch_size"]) == (2, 3, 4)
    assert (ascent["steps"], ascent["batch_size"]) == (1, 2)
    again = CliRunner().invoke(app, ["immunize", "--config", "out/config.yaml", "--output", "again"])
    assert again.exit_code == 0, again.output
    assert (mine / "out" / WEIGHTS).read_bytes() == (mine / "again" / WEIGHTS).read_bytes()


def test_the_written_configuration_repeats_the_run_and_flags_go_over_it(mine: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, immunize("--set", "steps=1", "--output", "one")).exit_code == 0
    again = runner.invoke(app, ["immunize", "--config", "one/config.yaml", "--output", "two"])
    assert again.exit_code == 0, again.output
    assert (mine / "one" / WEIGHTS).read_bytes() == (mine / "two" / WEIGHTS).read_bytes()
    assert runner.invoke(app, ["immunize", "--config", "one/config.yaml", "--output", "three", "--seed", "9"]).exit_code == 0
    assert yaml.safe_load((mine / "three" / "config.yaml").read_text())["seed"] == 9
    assert (mine / "one" / WEIGHTS).read_bytes() != (mine / "three" / WEIGHTS).read_bytes()


def test_without_pictures_the_model_draws_its_own(mine: Path) -> None:
    config = {
        "model": "my model",
        "concept": "fox",
        "concept_pictures": 2,
        "safe_pictures": 2,
        "options": {"steps": 1, "settle_steps": 1},
    }
    (mine / "run.yaml").write_text(yaml.safe_dump(config))
    done = CliRunner().invoke(app, ["immunize", "--config", "run.yaml", "--output", "out"])
    assert done.exit_code == 0, done.output
    assert (mine / "out" / WEIGHTS).exists()


def test_what_training_saves_is_taken_from_flags_and_files(mine: Path) -> None:
    flags = ["--precision", "bf16", "--gradient-checkpointing", "--accumulate", "2", "--ema", "0.9"]
    done = CliRunner().invoke(app, immunize("--set", "steps=1", *flags, "--output", "one"))
    assert done.exit_code == 0, done.output
    assert yaml.safe_load((mine / "one" / "config.yaml").read_text())["saving"] == {
        "precision": "bf16",
        "gradient_checkpointing": True,
        "accumulate": 2,
        "ema": 0.9,
        "compile": None,
    }
    again = CliRunner().invoke(app, ["immunize", "--config", "one/config.yaml", "--output", "two"])
    assert again.exit_code == 0, again.output
    assert (mine / "one" / WEIGHTS).read_bytes() == (mine / "two" / WEIGHTS).read_bytes()
    wrong = CliRunner().invoke(app, immunize("--precision", "fp8", "--output", "three"))
    assert wrong.exit_code == 2
    assert "precision" in wrong.stderr


def test_zero_steps_change_nothing(mine: Path) -> None:
    done = CliRunner().invoke(app, immunize("--set", "steps=0", "--output", "out"))
    assert done.exit_code == 0, done.output
    before, after = load_file(mine / "my model" / "unet" / WEIGHTS.name), load_file(mine / "out" / WEIGHTS)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_concept_that_nothing_recognises_is_told(mine: Path) -> None:
    done = CliRunner().invoke(app, ["attack", "my model", "--concept", "fox", "--output", "out"])
    assert done.exit_code == 2
    assert "nothing here can recognise 'fox'" in done.stderr


@pytest.mark.parametrize("folder", ["empty", "gone"])
def test_an_empty_or_missing_picture_folder_is_told(mine: Path, folder: str) -> None:
    (mine / "empty").mkdir()
    done = CliRunner().invoke(app, ["immunize", "my model", "--concept", "fox", "--concept-images", folder, "--output", "out"])
    assert done.exit_code == 2
    assert done.stderr.count("gift: ") == 1
    assert folder in done.stderr


def test_unreadable_pictures_stop_or_are_skipped(mine: Path) -> None:
    (mine / "concept" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    runner = CliRunner()
    stopped = runner.invoke(app, immunize("--set", "steps=1", "--output", "out"))
    assert stopped.exit_code == 2
    assert "bad.png" in stopped.stderr
    assert runner.invoke(app, immunize("--set", "steps=1", "--output", "out", "--skip-bad-images")).exit_code == 0


def test_generate_writes_a_picture(mine: Path) -> None:
    arguments = [
        "generate",
        "my model",
        "--prompt",
        "a fox",
        "--prompt",
        "the sea",
        "--count",
        "3",
        "--steps",
        "2",
        "--output",
        "x.png",
    ]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    with Image.open(mine / "x.png") as picture:
        assert picture.size == (48, 32)


@pytest.mark.slow
def test_an_interrupted_process_leaves_a_run_that_goes_on_to_the_same_weights(mine: Path) -> None:
    """Ctrl-C after the first checkpoint, SIGTERM after the next."""
    options = ("--method", "ascent", "--set", "steps=125", "--set", "batch_size=2")
    arguments = [sys.executable, "-m", "gift.cli.main", *immunize(*options, settle=True)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for sign, after in ((signal.SIGINT, 50), (signal.SIGTERM, 100)):
        process = subprocess.Popen([*arguments, "--output", "cut"], stderr=subprocess.PIPE, text=True, env=environment)
        deadline = time.monotonic() + 120
        while max((int(file.name[5:]) for file in mine.glob("cut/work/steps/*/step-????????")), default=0) < after:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no checkpoint within two minutes"
            time.sleep(0.02)
        process.send_signal(sign)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "the same command goes on" in said
        assert not (mine / "cut" / "model").exists()
    kept = torch.get_num_threads()
    torch.set_num_threads(1)  # as the others: sums of other numbers of threads round differently
    try:
        for output in ("cut", "whole"):
            done = CliRunner().invoke(app, [*immunize(*options, settle=True), "--output", output])
            assert done.exit_code == 0, done.output
            assert ("going on from step" in done.stderr) is (output == "cut")
    finally:
        torch.set_num_threads(kept)
    assert (mine / "cut" / WEIGHTS).read_bytes() == (mine / "whole" / WEIGHTS).read_bytes()


def test_several_concepts_from_a_file_and_their_evaluation(art_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concepts.txt").write_text("category:animal\nmushroom = 3\n")
    Path("few.yaml").write_text("{concept_pictures: 2, safe_pictures: 2}")
    arguments = [
        "immunize",
        art_model,
        "--concepts",
        "concepts.txt",
        "--method",
        "ascent",
        "--set",
        "steps=1",
        "--config",
        "few.yaml",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    kept = yaml.safe_load(Path("immunized/config.yaml").read_text())
    assert (kept["concept"], kept["balance"]) == (["category:animal", "mushroom"], [1.0, 3.0])
    assert list(json.loads(Path("immunized/immunize.json").read_text())["losses"]) == ["category:animal", "mushroom", "safe"]
    Path("look.yaml").write_text(f"{{pictures: 6, safe_pictures: 6, neighbour_pictures: 4, original: {art_model}}}")
    done = CliRunner().invoke(app, ["evaluate", "immunized/model", "--concepts", "concepts.txt", "--config", "look.yaml"])
    assert done.exit_code == 0, done.output
    found = json.loads(Path("evaluation/evaluation.json").read_text())
    assert [row["concept"] for row in found["concepts"]] == ["category:animal", "mushroom"]
    assert all(row["concept"] in done.stdout and len(row["concept_scores"]) == 6 for row in found["concepts"])
    assert found["concept_score"] == found["concepts"][0]["concept_score"]
    Path("unknown.txt").write_text("ant\nmushrom")
    Path("folders.txt").write_text("ant = 1, mine\nmushroom")
    Path("uneven.yaml").write_text("{concept: [ant, mushroom], balance: [1]}")
    for arguments, message in (
        (["immunize", art_model, "--concepts", "concepts.txt", "--concept", "ant"], "name all concepts one way"),
        (["immunize", art_model, "--concepts", "unknown.txt"], "unknown.txt, line 2: no concept 'mushrom'"),
        (["evaluate", art_model, "--concepts", "unknown.txt"], "unknown.txt, line 2: no concept 'mushrom'"),
        (["immunize", art_model, "--concepts", "folders.txt"], "mine"),
        (["immunize", art_model, "--concepts", "folders.txt", "--concept-images", "."], "name all folders one way"),
        (["immunize", art_model, "--config", "uneven.yaml"], "balance: 2 concepts need 2 values, one each"),
        (["evaluate", art_model, "--concepts", "concepts.txt", "--concept-images", "."], "2 concepts need 2 values"),
        (["evaluate", art_model, "--concepts", "concepts.txt", "--embeds", "x"], "is about one concept"),
        (
            ["attack", art_model, "--concept", "ant", "--concept", "mushroom"],
            "an attack is about one concept; run it once for each",
        ),
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2
        assert message in done.stderr
