"""The one training loop: steps, seeds, checkpoints, resume, interruption, progress. What a step computes is not its business."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import torch

from gift.errors import Interrupted
from gift.parallel import anywhere, wait
from gift.training.checkpoint import Checkpoints
from gift.training.progress import Reporter, Silent

Logs = dict[str, float]


class Stepper(Protocol):
    """What the loop runs."""

    def step(self, index: int, generator: torch.Generator) -> Logs:
        """Takes step `index`; every draw comes from `generator`."""

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as nested dicts and lists of tensors and numbers."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""


def step_generator(seed: int, index: int) -> torch.Generator:
    """The randomness of one step. It depends on seed and step alone, so a resumed run draws what an unbroken one would."""
    return torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)


def another_stream(generator: torch.Generator) -> torch.Generator:
    """Randomness of the same step that no step of the same seed has by `step_generator`: for a defence that asks in the order of an
    attack's step, and would train on the very noise and timesteps of an attack of its seed."""
    return torch.Generator().manual_seed(generator.initial_seed() ^ 0x5A5A_5A5A)  # the low 32 bits: CPU generators hear no others


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a question that the loop asks after each step; a second one is as ever."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for sign, handler in before.items():
            signal.signal(sign, handler)

    before = {sign: signal.signal(sign, note) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def run(
    stepper: Stepper,
    *,
    steps: int,
    seed: int,
    title: str = "training",
    checkpoints: Checkpoints | None = None,
    reporter: Reporter | None = None,
    after: Callable[[int], None] | None = None,
) -> list[Logs]:
    """Runs `steps` steps, going on from the newest checkpoint if there is one.

    Args:
        stepper: what a step computes.
        steps: how many.
        seed: of all draws.
        title: for the progress display.
        checkpoints: where to keep and find them; None for none.
        reporter: told of progress.
        after: called with the number of steps done, after each, and once with 0 before the first.

    Returns:
        The logs of every step of the whole run.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written if there is a place for them.
        NonFiniteError: from a step; the last checkpoint is kept.
    """
    reporter = reporter or Silent()
    history: list[Logs] = []
    found = checkpoints.latest() if checkpoints else None
    wait()  # nobody writes a checkpoint before all have looked for one
    if found:
        stepper.load_state(found[1]["stepper"])
        history = [dict(logs) for logs in found[1]["history"]]
        reporter.say(f"{title}: going on from step {found[0]} ({checkpoints.folder if checkpoints else ''})")
    elif checkpoints:
        reporter.say(f"{title}: beginning at step 0 (no checkpoint in {checkpoints.folder})")
    done = len(history)

    def save() -> None:
        if checkpoints:
            checkpoints.save(done, {"stepper": stepper.state(), "history": history})

    reporter.start(title, steps, done)
    try:
        with stop_requests() as stopping:
            if after and not done:
                after(0)
            while done < steps:
                history.append(stepper.step(done, step_generator(seed, done)))
                done += 1
                reporter.step(done, history[-1])
                if after:
                    after(done)
                due = done == steps or (checkpoints is not None and done % checkpoints.every == 0)
                if due:
                    save()
                if anywhere(stopping()):  # after the last step, too: what comes next may be long
                    if not due:
                        save()
                    kept = f"checkpoint in {checkpoints.folder}; the same command goes on" if checkpoints else "nothing was kept"
                    raise Interrupted(f"{title} stopped at step {done} of {steps}: {kept}")
    finally:
        reporter.end()
    return history
