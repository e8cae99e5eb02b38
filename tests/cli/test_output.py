"""An output folder: what is not of gift's making, or not yet finished, is never replaced."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gift.cli.main import app
from gift.cli.output import output_folder
from gift.errors import GiftError
from gift.models.sd import StableDiffusion
from gift.training.progress import Live
from tests.conftest import noise_pictures

IMMUNIZE = ["immunize", "--method", "ascent", "--set", "steps=3", "--set", "batch_size=2"]
ATTACK = ["attack", "--steps", "2", "--set", "batch_size=2"]


@pytest.fixture
def here(random_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, pictures and configurations."""
    random_model.save(tmp_path / "model")
    noise_pictures(tmp_path / "pictures", 3)
    (tmp_path / "immunize.yaml").write_text("{model: model, concept: fox, concept_pictures: 2, safe_pictures: 2}")
    (tmp_path / "attack.yaml").write_text(
        "{model: model, concept: fox, evaluation_pictures: 2, concept_images: pictures, similarity: bundled}"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(verb: list[str], output: str, *more: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*verb, "--config", f"{verb[0]}.yaml", *more, "--output", output])
    assert "Traceback" not in done.output
    return done.exit_code, done.stderr


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("output", [".", "link"])
def test_a_model_is_not_replaced_by_what_is_made_of_it(here: Path, output: str) -> None:
    if output == "link":
        (here / "link").mkdir()
        (here / "link" / "model").symlink_to(here / "model")
    before = files(here)
    code, said = run(IMMUNIZE, output)
    assert code == 2
    assert "model is read by this command, and would be replaced; choose another --output" in said
    assert files(here) == before


@pytest.mark.parametrize(("verb", "made"), [(IMMUNIZE, "model"), (ATTACK, "weights")])
def test_a_users_own_folder_is_not_replaced(here: Path, verb: list[str], made: str) -> None:
    (here / "out" / made).mkdir(parents=True)
    (here / "out" / made / "mine.txt").write_text("precious")
    before = files(here)
    code, said = run(verb, "out")
    assert code == 2
    assert f"out/{made} is not of a 'gift {verb[0]}', and would be replaced" in said
    assert files(here) == before
    (here / "out" / made / "mine.txt").unlink()
    assert run(verb, "out")[0] == 0, "an empty one may be"


def test_an_adapter_s_pictures_in_the_folder_of_the_weights_stay(here: Path) -> None:
    (here / "out" / "weights").mkdir(parents=True)
    noise_pictures(here / "out" / "weights" / "mine", 3)
    before = files(here)
    code, said = run(ATTACK, "out", "--concept-images", "out/weights/mine")
    assert code == 2
    assert "is read by this command" in said
    assert files(here) == before


def test_weights_of_a_run_that_ended_before_its_record_may_be_replaced(here: Path) -> None:
    assert run(IMMUNIZE, "out")[0] == 0
    (here / "out" / "immunize.json").unlink()
    assert run(IMMUNIZE, "out")[0] == 0


@pytest.mark.parametrize("verb", [IMMUNIZE, ATTACK])
def test_a_configuration_that_is_not_gifts_is_not_replaced(here: Path, verb: list[str]) -> None:
    (here / "out").mkdir()
    (here / "out" / "config.yaml").write_text("mine: 1\n")
    code, said = run(verb, "out")
    assert code == 2
    assert "out/config.yaml is not gift's, and would be replaced" in said
    assert [path.name for path in (here / "out").iterdir()] == ["config.yaml"]


def test_one_folder_takes_both_verbs_in_turn_and_again(here: Path) -> None:
    for verb in (IMMUNIZE, ATTACK, IMMUNIZE, ATTACK):
        code, said = run(verb, "out")
        assert code == 0, said
    assert yaml.safe_load((here / "out" / "config.yaml").read_text())["attack"] == "lora"
    assert (here / "out" / "model").is_dir()
    assert (here / "out" / "weights").is_dir()


def test_a_verb_leaves_anothers_interrupted_run_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Live, done: int, logs: object) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Live, "step", step)
        assert run(IMMUNIZE, "out")[0] == 130
    before = files(here / "out")
    code, said = run(ATTACK, "out")
    assert code == 2
    assert "out holds a 'gift immunize' that was interrupted; let it finish there, or choose another --output" in said
    assert files(here / "out") == before
    code, said = run(IMMUNIZE, "out")
    assert code == 0
    assert "going on from step 2" in said


def test_other_folders_are_held_as_before(tmp_path: Path) -> None:
    """A grid's, which has a configuration of its own, may lie beside anything."""
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    with output_folder(tmp_path) as folder:
        assert folder == tmp_path
    with pytest.raises(GiftError, match="not gift's"), output_folder(tmp_path, "evaluate"):
        pass


def test_words_that_a_model_does_not_read_are_told(here: Path) -> None:
    long = "fox " * 80
    done = CliRunner().invoke(app, ["generate", "model", "-p", "a fox", "-p", long, "-n", "1", "--steps", "2"])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("note: the model does not read to the end of") == 1
    (here / "pictures" / next((here / "pictures").glob("*.png")).with_suffix(".txt").name).write_text(long)
    code, said = run(ATTACK, "out")
    assert code == 0
    assert "1 captions are longer than the model reads" in said


def test_a_demo_that_begins_afresh_removes_its_finished_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object) -> None:
        raise GiftError("far enough")

    monkeypatch.setattr("gift.bench.beside.run_demo", stopped)
    kept = tmp_path / "demo" / "work" / "pieces" / "score-x.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_text("")
    for more, there in ([], True), (["--restart"], False):
        done = CliRunner().invoke(app, ["demo", "--output", str(tmp_path / "demo"), *more])
        assert "far enough" in done.stderr
        assert kept.exists() is there
