"""A command that was stopped goes on, says so, and tells what differs (field failures 22, 24, 27, 29)."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from gift.cli import immunize as verb
from gift.cli.main import app
from gift.errors import GiftError
from gift.files import LOCK, owned
from gift.models.sd import StableDiffusion
from gift.training.method import TrainingRun
from gift.training.progress import Live
from tests.conftest import Clock

WEIGHTS = Path("model/unet/diffusion_pytorch_model.safetensors")
"""Of the user's model, and below an output folder of the result."""
Gift = Callable[..., tuple[int, str]]


@pytest.fixture
def gift(random_model: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gift:
    """Runs `gift immunize` on a small model; gives the exit code and what was said."""
    random_model.save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("{model: model, concept: fox, concept_pictures: 2, safe_pictures: 2}")

    def run(output: str, *more: str, first: str = "esd") -> tuple[int, str]:
        options = ["--method", f"{first}+ascent", "--set", "steps=3"]
        options += ["--set", "esd.steps=1", "--set", "esd.sampler_steps=2"] if first == "esd" else []
        done = CliRunner().invoke(app, ["immunize", "--config", "run.yaml", *options, *more, "--output", output])
        assert "Traceback" not in done.output
        return done.exit_code, done.stderr

    return run


@pytest.fixture
def stopped(gift: Gift, monkeypatch: pytest.MonkeyPatch) -> Gift:
    """The same, with a SIGTERM at the second step of the last method."""

    def run(output: str, *more: str) -> tuple[int, str]:
        def step(self: Live, done: int, logs: object) -> None:
            if done == 2:
                signal.raise_signal(signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(Live, "step", step)
            return gift(output, *more)

    return run


def test_a_stopped_command_goes_on_and_says_so(gift: Gift, stopped: Gift) -> None:
    code, said = stopped("cut")
    assert code == 130
    assert "ascent stopped at step 2 of 3: checkpoint in cut/work/steps/1-ascent; the same command goes on" in said
    assert "esd: beginning at step 0 (no checkpoint in cut/work/steps/0-esd)" in said
    code, said = gift("cut")
    assert code == 0, said
    assert "esd: going on from step 1 (cut/work/steps/0-esd)" in said
    assert "ascent: going on from step 2 (cut/work/steps/1-ascent)" in said
    assert not list(Path("cut").glob("work/steps/*"))
    code, said = gift("whole")
    assert code == 0, said
    assert said.count("beginning at step 0 (no checkpoint in") == 2
    assert (Path("cut") / WEIGHTS).read_bytes() == (Path("whole") / WEIGHTS).read_bytes()


def test_other_settings_are_told_and_refused_unless_the_run_is_to_begin_afresh(gift: Gift, stopped: Gift) -> None:
    assert stopped("out")[0] == 130
    kept = Path("out/config.yaml").read_text()
    Path("more.yaml").write_text("{model: model, concept: fox, concept_pictures: 2, safe_pictures: 3}")
    for first, flags, difference in (
        ("esd", ["--set", "esd.rate=1e-3"], "method.rate: 0.0002 -> 0.001"),
        ("esd", ["--set", "rate=1e-3"], "method.2.rate: "),
        ("uce", [], 'method.1.name: "esd" -> "uce"'),
        ("esd", ["--seed", "5"], "seed: 0 -> 5"),
        ("esd", ["--ema", "0.9"], "saving.ema: null -> 0.9"),
        ("esd", ["--config", "more.yaml"], 'safe pictures: "'),
    ):
        code, said = gift("out", *flags, first=first)
        assert code == 2, said
        assert difference in said.splitlines()[-1]
        assert "or begin afresh with --restart" in said
        assert Path("out/config.yaml").read_text() == kept
        assert len(list(Path("out").glob("work/steps/1-ascent/step-*"))) == 1
    code, said = gift("out", "--seed", "5", "--restart")
    assert code == 0, said
    assert "beginning afresh: 3 checkpoints in out/work were removed" in said
    assert said.count("beginning at step 0") == 2
    assert yaml.safe_load(Path("out/config.yaml").read_text())["seed"] == 5
    assert gift("other", "--seed", "5")[0] == 0
    assert (Path("out") / WEIGHTS).read_bytes() == (Path("other") / WEIGHTS).read_bytes()


def test_weights_that_changed_under_the_same_path_are_other_weights(gift: Gift, stopped: Gift) -> None:
    assert stopped("out")[0] == 130
    assert gift("other")[0] == 0
    WEIGHTS.write_bytes((Path("other") / WEIGHTS).read_bytes())
    code, said = gift("out")
    assert code == 2
    assert 'weights: "' in said.splitlines()[-1]


def test_another_scheduler_or_autoencoder_under_the_same_path_is_another_model(gift: Gift, stopped: Gift) -> None:
    assert stopped("out")[0] == 130
    scheduler, vae = Path("model/scheduler/scheduler_config.json"), Path("model/vae/diffusion_pytorch_model.safetensors")
    kept = scheduler.read_text()
    scheduler.write_text(json.dumps(json.loads(kept) | {"prediction_type": "v_prediction"}))
    code, said = gift("out")
    assert (code, 'scheduler: "' in said.splitlines()[-1]) == (2, True), said
    scheduler.write_text(kept)
    weights = load_file(vae)
    save_file({name: 1.01 * value for name, value in weights.items()}, vae, metadata={"format": "pt"})
    code, said = gift("out")
    assert (code, 'weights: "' in said.splitlines()[-1]) == (2, True), said


def test_flags_about_saving_leave_the_file_s_others(gift: Gift) -> None:
    Path("saving.yaml").write_text(
        "{model: model, concept: fox, concept_pictures: 2, safe_pictures: 2, saving: {precision: bf16, ema: 0.5}}"
    )
    assert gift("out", "--config", "saving.yaml", "--accumulate", "2", "--ema", "0.9")[0] == 0
    told = yaml.safe_load(Path("out/config.yaml").read_text())["saving"]
    assert (told["precision"], told["ema"], told["accumulate"]) == ("bf16", 0.9, 2)


def test_a_result_that_cannot_be_written_costs_no_steps(gift: Gift, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: StableDiffusion, path: Path) -> Path:
        raise GiftError(f"no room for {path}")

    with monkeypatch.context() as patch:
        patch.setattr(StableDiffusion, "save", fail)
        assert gift("out")[0] == 2
    code, said = gift("out")
    assert code == 0
    assert "ascent: going on from step 3" in said
    assert gift("whole")[0] == 0
    assert (Path("out") / WEIGHTS).read_bytes() == (Path("whole") / WEIGHTS).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1000})())
        code, said = gift("none")
    assert code == 2
    assert "no room for none/model: 0.3 MB are needed and 0.0 MB are free" in said
    assert not Path("none").exists()


def test_a_folder_in_use_and_sigterm_before_the_first_step(gift: Gift, monkeypatch: pytest.MonkeyPatch) -> None:
    with owned(Path("out")):
        code, said = gift("out")
    assert code == 2
    assert said.strip() == "gift: out is in use by another gift run; wait for it or choose another --output"
    monkeypatch.setattr(verb, "check_pictures", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    code, said = gift("out")
    assert code == 130
    assert "gift: stopped" in said
    assert not (Path("out") / LOCK).exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_time_of_a_run_is_that_of_all_its_legs(gift: Gift, stopped: Gift, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("gift.training.measure.time.perf_counter", clock)
    monkeypatch.setattr(TrainingRun, "check", clock.lasting(TrainingRun.check, 100))  # at each checkpoint, and at the end
    assert gift("whole")[0] == 0
    assert stopped("cut")[0] == 130
    assert gift("cut")[0] == 0
    whole, cut = (json.loads(Path(f"{name}/immunize.json").read_text())["seconds"] for name in ("whole", "cut"))
    assert whole >= 200
    assert cut == whole + 100, "one checkpoint more"
