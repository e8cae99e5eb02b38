"""Trackers are told every number under its run's title, and their faults never end a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker

from gift.attacks import Full
from gift.data.latents import LatentSet
from gift.errors import GiftError
from gift.models.sd import StableDiffusion
from gift.training import tracking
from gift.training.progress import Silent
from gift.training.tracking import Tracked, finish, tracked
from tests.conftest import Heard


class Book(GeneralTracker):
    """Writes everything down; fails at the call whose number is `at`."""

    name = "book"
    requires_logging_directory = True
    main_process_only = False

    def __init__(self, run_name: str = "", logging_dir: str = "", at: int = -1) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = [("made", (run_name, logging_dir))]
        self.at = at

    @property
    def tracker(self) -> Any:
        return self

    def note(self, what: str, value: Any) -> None:
        if len(self.calls) == self.at:
            raise ConnectionError("the server\nis gone")
        self.calls.append((what, value))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.note("config", values)

    def log(self, values: dict[str, Any], step: int | None, **kwargs: Any) -> None:
        self.note("log", (step, values))

    def finish(self) -> None:
        self.note("finish", None)


def test_every_step_is_told_under_the_runs_title(random_model: StableDiffusion, concept_set: LatentSet) -> None:
    book, heard = Book(), Heard()
    reporter = Tracked(heard, lambda: book)
    done = Full(steps=3, batch_size=2)(random_model, concept_set, reporter=reporter)
    finish(reporter)
    logged = [value for what, value in book.calls if what == "log"]
    assert [step for step, _ in logged] == [1, 2, 3]
    assert [values["full/loss"] for _, values in logged] == [x["loss"] for x in done.logs]
    assert book.calls[-1][0] == "finish"
    assert heard.steps == 3


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_tracker_that_fails_is_told_once_and_the_training_goes_on(
    random_model: StableDiffusion, concept_set: LatentSet, at: int
) -> None:
    heard = Heard()
    reporter = Tracked(heard, lambda: Book(at=at))
    done = Full(steps=4, batch_size=2)(random_model, concept_set, reporter=reporter)
    finish(reporter)
    assert len(done.logs) == 4
    (line,) = [line for line in heard.lines if "tracker" in line]
    assert "ConnectionError: the server is gone" in line


def test_one_that_cannot_begin_is_told_once() -> None:
    def make() -> GeneralTracker:
        raise OSError("no disk")

    heard = Heard()
    reporter = Tracked(heard, make)
    for title in ("one", "two"):
        reporter.start(title, 1)
        reporter.step(1, {"loss": 1.0})
        reporter.end()
    assert len(heard.lines) == 1


def test_a_tracker_gets_the_folder_and_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[Book] = []

    def book(*args: Any, **kwargs: Any) -> Book:
        made.append(Book(*args, **kwargs))
        return made[0]

    book.requires_logging_directory = True  # type: ignore[attr-defined]
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", book)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    config = {"seed": 3, "concept": ["a", "b"], "ema": None, "options": {"a": [1], "deep": {"b": {"c": 1e-5}}, "none": {}}}
    reporter = tracked(Silent(), "tensorboard", tmp_path / "out", config)
    assert not made, "nothing begins before a run does"
    reporter.start("full", 1)
    assert made[0].calls == [
        ("made", ("out", str(tmp_path / "out" / "tracking"))),
        (
            "config",
            {
                "seed": "3",
                "concept": "['a', 'b']",
                "ema": "None",
                "options.a": "[1]",
                "options.deep.b.c": "1e-05",
                "options.none": "{}",
            },
        ),
    ]


def test_unknown_and_missing_trackers_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert isinstance(tracked(Silent(), None, tmp_path, {}), Silent)
    with pytest.raises(GiftError, match="did you mean wandb"):
        tracked(Silent(), "wandbb", tmp_path, {})
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [])
    with pytest.raises(GiftError, match="'mlflow' is not installed: pip install mlflow"):
        tracked(Silent(), "mlflow", tmp_path, {})
