"""Sends a run's numbers to an experiment tracker, through accelerate; a tracker that fails never ends the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from gift.errors import GiftError, one_of
from gift.training.progress import Reporter

NAMES = ("tensorboard", "wandb", "mlflow")
"""The trackers that are offered: those of the extra `trackers`."""


class Tracked:
    """A reporter that also tells a tracker.

    Args:
        inner: who is told anyway.
        make: starts the tracker; called once, when the first run begins.
    """

    def __init__(self, inner: Reporter, make: Callable[[], GeneralTracker]) -> None:
        self.inner, self.make = inner, make
        self._tracker: GeneralTracker | None = None
        self._given_up = False
        self._title = ""

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Passes it on, and starts the tracker at the first run."""
        self._title = title
        self.inner.start(title, total, done)
        if self._tracker is None and not self._given_up:
            self._safely(self._begin)

    def step(self, done: int, logs: Mapping[str, float]) -> None:
        """Passes it on, and logs each number under the run's title."""
        self.inner.step(done, logs)
        tracker = self._tracker
        if tracker is not None:
            self._safely(lambda: tracker.log({f"{self._title}/{name}": value for name, value in logs.items()}, step=done))

    def end(self) -> None:
        """Passes it on."""
        self.inner.end()

    def say(self, text: str) -> None:
        """Passes it on."""
        self.inner.say(text)

    def close(self) -> None:
        """Ends the tracker's run."""
        if self._tracker is not None:
            self._safely(self._tracker.finish)
        self._tracker = None

    def _begin(self) -> None:
        self._tracker = self.make()

    def _safely(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # whatever a tracker raises: its server, its disk, its own faults
            self._tracker, self._given_up = None, True
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            self.inner.say(f"note: the tracker failed and is not used any more ({reason}); the training goes on")


def flat(config: Mapping[str, Any], head: str = "") -> dict[str, str]:
    """A configuration as trackers take it: one level of names, 'outer.inner', with words and numbers as text, and so lists."""
    out: dict[str, str] = {}
    for key, value in config.items():
        out |= flat(value, f"{head}{key}.") if isinstance(value, Mapping) and value else {f"{head}{key}": str(value)}
    return out


def tracked(inner: Reporter, name: str | None, folder: Path, config: Mapping[str, Any]) -> Reporter:
    """A reporter that also tells the tracker of that name; `inner` itself without one.

    Args:
        inner: who is told anyway.
        name: of `NAMES`.
        folder: the run's output folder: its name is the run's, and trackers that write files do so in `tracking/`.
        config: the run's configuration, for the tracker to show.

    Raises:
        GiftError: an unknown tracker, or one that is not installed.
    """
    if name is None:
        return inner
    if name not in NAMES:
        raise one_of("tracker", name, list(NAMES))
    if name not in [str(kind) for kind in get_available_trackers()]:
        raise GiftError(f"the tracker '{name}' is not installed: pip install {name}, or leave --tracker out")

    def make() -> GeneralTracker:
        kind = LOGGER_TYPE_TO_CLASS[name]
        where = {"logging_dir": str(folder / "tracking")} if getattr(kind, "requires_logging_directory", False) else {}
        tracker = kind(folder.name, **where)
        if hasattr(tracker, "start"):
            tracker.start()
        tracker.store_init_configuration(flat(config))
        return tracker

    return Tracked(inner, make)


def finish(reporter: Reporter) -> None:
    """Ends the tracker's run, where there is one."""
    if isinstance(reporter, Tracked):
        reporter.close()
