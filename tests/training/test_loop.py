"""The loop: steps in order, randomness by step alone, checkpoints, and a polite end on request (22, 23, 27)."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gift.errors import Interrupted, NonFiniteError
from gift.immunizers import IMMUNIZERS
from gift.training.checkpoint import Checkpoints
from gift.training.loop import Logs, run, step_generator
from gift.training.progress import Silent
from tests.conftest import StopAt

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Walk:
    """A stepper whose position is the sum of its draws."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.position, self.indices, self.fail_at = torch.zeros(3), list[int](), fail_at

    def step(self, index: int, generator: torch.Generator) -> Logs:
        if index == self.fail_at:
            raise NonFiniteError("broken")
        self.indices.append(index)
        self.position = self.position + torch.randn(3, generator=generator)
        return {"position": self.position.sum().item()}

    def state(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Listener(Silent):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def start(self, title: str, total: int, done: int = 0) -> None:
        self.heard.append(("start", title, total, done))

    def step(self, done: int, logs: Mapping[str, float]) -> None:
        self.heard.append(done)

    def end(self) -> None:
        self.heard.append("end")

    def say(self, text: str) -> None:
        self.heard.append(text)


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "work", {"a": 1}, every=2)


@given(st.integers(0, 2**40), st.integers(0, 10**6))
def test_a_steps_randomness_is_of_seed_and_step_alone(seed: int, index: int) -> None:
    def draw(s: int, i: int) -> list[float]:
        return torch.rand(4, generator=step_generator(s, i)).tolist()

    assert draw(seed, index) == draw(seed, index)
    assert draw(seed, index) != draw(seed, index + 1)
    assert draw(seed, index) != draw(seed + 1, index)


def test_the_order_of_things() -> None:
    listener, walk = Listener(), Walk()
    logs = run(walk, steps=3, seed=1, title="walk", reporter=listener, after=lambda done: listener.heard.append(f"after {done}"))
    assert listener.heard == [("start", "walk", 3, 0), "after 0", 1, "after 1", 2, "after 2", 3, "after 3", "end"]
    assert walk.indices == [0, 1, 2]
    assert [log["position"] for log in logs][-1] == walk.position.sum().item()
    assert run(Walk(), steps=0, seed=1) == []


@pytest.mark.parametrize("sign", SIGNALS)
@pytest.mark.parametrize("stop", [1, 2, 4, 5])  # 5 is the last: what the caller does next may be long
def test_an_interrupted_run_goes_on_bit_for_bit(kept: Checkpoints, stop: int, sign: signal.Signals) -> None:
    whole = Walk()
    expected = run(whole, steps=5, seed=3)
    handlers = [signal.getsignal(s) for s in SIGNALS]
    with pytest.raises(Interrupted, match=f"stopped at step {stop} of 5: checkpoint in") as caught:
        run(Walk(), steps=5, seed=3, checkpoints=kept, reporter=StopAt(stop, sign))
    assert caught.value.exit_code == 130
    assert [signal.getsignal(s) for s in SIGNALS] == handlers
    rest, listener, seen = Walk(), Listener(), list[int]()
    logs = run(rest, steps=5, seed=3, checkpoints=kept, reporter=listener, after=seen.append)
    assert logs == expected
    assert torch.equal(rest.position, whole.position)
    assert rest.indices == list(range(stop, 5))
    assert seen == list(range(stop + 1, 6))
    assert f"going on from step {stop}" in listener.heard[0]
    assert listener.heard[1] == ("start", "training", 5, stop)


def test_without_a_place_nothing_is_kept_and_that_is_said() -> None:
    with pytest.raises(Interrupted, match="nothing was kept"):
        run(Walk(), steps=5, seed=3, reporter=StopAt(2))


def test_a_request_while_the_last_step_is_looked_at_is_not_lost(kept: Checkpoints) -> None:
    def look(done: int) -> None:
        if done == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="stopped at step 3 of 3: checkpoint in"):
        run(Walk(), steps=3, seed=3, checkpoints=kept, after=look)
    assert len(run(Walk(), steps=3, seed=3, checkpoints=kept, after=look)) == 3


def test_a_second_request_is_as_ever() -> None:
    class Twice(StopAt):
        def step(self, done: int, logs: Mapping[str, float]) -> None:
            signal.raise_signal(self.sign)
            signal.raise_signal(self.sign)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(Walk(), steps=3, seed=3, reporter=Twice(1))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_broken_step_keeps_the_last_checkpoint(kept: Checkpoints) -> None:
    listener = Listener()
    with pytest.raises(NonFiniteError):
        run(Walk(fail_at=3), steps=5, seed=3, checkpoints=kept, reporter=listener)
    assert listener.heard[-1] == "end"
    found = kept.latest()
    assert found is not None
    assert found[0] == 2
    whole, rest = Walk(), Walk()
    assert run(rest, steps=5, seed=3, checkpoints=kept) == run(whole, steps=5, seed=3)
    assert torch.equal(rest.position, whole.position)


def test_it_runs_in_another_thread(kept: Checkpoints) -> None:
    walk = Walk()
    thread = threading.Thread(target=run, args=(walk,), kwargs={"steps": 3, "seed": 1, "checkpoints": kept})
    thread.start()
    thread.join()
    assert walk.indices == [0, 1, 2]


@pytest.mark.slow
def test_configurations_travel_to_a_spawned_process() -> None:
    configs = [kind() for kind in IMMUNIZERS.values()]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(repr, configs)) == [repr(config) for config in configs]
