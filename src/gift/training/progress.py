"""How a run tells where it is: nothing, a live bar, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gift.errors import shown


class Reporter(Protocol):
    """Told of every run's start, steps and end."""

    def start(self, title: str, total: int, done: int = 0) -> None:
        """A run of `total` steps begins, `done` of which are from a checkpoint."""

    def step(self, done: int, logs: Mapping[str, float]) -> None:
        """`done` steps are complete; `logs` holds losses and norms."""

    def end(self) -> None:
        """The run is over, well or not."""

    def say(self, text: str) -> None:
        """A line for the reader."""


class Silent:
    """Says nothing."""

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Nothing."""

    def step(self, done: int, logs: Mapping[str, float]) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


def say_repeats(reporter: Reporter | None, what: str, pictures: int, batch_size: int) -> None:
    """Tells of batches that are larger than their set: pictures are drawn with replacement, so every step is taken."""
    if reporter and pictures < batch_size:
        reporter.say(f"{pictures} {what} for batches of {batch_size}: a picture is in a batch more than once")


def _numbers(logs: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in logs.items())


class Live:
    """A rich progress bar on a terminal; elsewhere one plain line at most every `pause` seconds."""

    def __init__(self, console: Console | None = None, pause: float = 10.0) -> None:
        self.console = console or Console(file=sys.stderr)
        self.pause = pause
        self._bar: Progress | None = None
        self._title, self._total, self._first, self._began, self._said = "", 0, 0, 0.0, 0.0

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Shows the bar."""
        self._title, self._total, self._first = title, total, done
        self._began = self._said = time.monotonic()
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[logs]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.add_task(title, total=total, completed=done, rate="", logs="")
            self._bar.start()

    def step(self, done: int, logs: Mapping[str, float]) -> None:
        """Moves the bar, or prints a line."""
        now = time.monotonic()
        rate = (done - self._first) / max(now - self._began, 1e-9)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, rate=f"{rate:.1f}/s", logs=_numbers(logs))
        elif now - self._said >= self.pause or done == self._total:
            left = (self._total - done) / max(rate, 1e-9)
            self.say(f"{self._title}: step {done}/{self._total}  {_numbers(logs)}  {rate:.1f} steps/s  {left:.0f} s left")
            self._said = now

    def end(self) -> None:
        """Takes the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self.console.print(shown(text), markup=False, highlight=False, soft_wrap=True)
