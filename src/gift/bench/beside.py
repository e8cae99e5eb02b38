"""A demo in two processes: a small model gains little from a second thread, and much from a second process."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from gift.bench.config import CONTROL, DemoConfig
from gift.bench.demo import Demo, Outcome
from gift.bench.processes import begin, cores, stoppable, threads_for_children
from gift.errors import GiftError

PATIENCE = 60.0
"""Seconds that the second process has to write a checkpoint when the first one stops."""


def run_demo(demo: Demo, jobs: int = 2, prepare: Callable[[], None] | None = None) -> Outcome:
    """Runs a demo, its last method in a process of its own once the control, on which that rests, is there.

    Finished pieces meet in the demo's folder. What the second process does not bring, for whatever reason, the first one computes
    itself, so the record is the same either way; with the same number of threads, to the last bit.

    Args:
        demo: what to run.
        jobs: 1 for this process alone.
        prepare: called once in the second process; a function of a module.
    """
    *_, last = demo.chains
    hopeless = demo.score("original", demo.bench.model).score == 0  # which the run tells, before anything is defended
    if jobs < 2 or last in {"original", CONTROL} or hopeless:
        return demo.run()
    began, before = time.perf_counter(), torch.get_num_threads()
    threads = max(1, cores() // 2)
    torch.set_num_threads(threads)
    child = multiprocessing.get_context("spawn").Process(
        target=_work, args=(demo.config, demo.folder, [last], threads, prepare), daemon=True
    )
    try:
        demo.defend(demo.chains[CONTROL])
        with threads_for_children(threads):
            child.start()
        outcome = demo.run(wait={last: child.join})
        outcome.seconds = time.perf_counter() - began
        return outcome
    finally:
        torch.set_num_threads(before)
        if child.is_alive():
            child.terminate()
            child.join(PATIENCE)


def _work(config: DemoConfig, folder: Path, names: Sequence[str], threads: int, prepare: Callable[[], None] | None) -> None:
    begin(threads, prepare)
    try:
        with stoppable("the demo's second process"):
            Demo(config, folder).run(only=names)
    except GiftError:
        return  # the first process meets the same, and tells it
