"""Pieces in several processes of this machine: fresh ones (spawn), each with its share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import FrameType
from typing import TypeAlias

import torch

from gift.bench.pieces import Piece
from gift.bench.runner import Done, work
from gift.errors import Interrupted

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
Turn: TypeAlias = "Synchronized[int]"
"""How many workers have begun, for all of them to see."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads_for_children(threads: int) -> Iterator[None]:
    """Processes that start inside the block have so many threads each: the libraries read this when they are loaded."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def take_gpu(turn: Turn | None) -> None:
    """Where the machine has several GPUs, 'cuda' is from here on the one whose turn it is."""
    if turn is None or (gpus := torch.cuda.device_count()) < 2:
        return
    with turn.get_lock():
        number = turn.value
        turn.value += 1
    torch.cuda.set_device(number % gpus)


def begin(threads: int, prepare: Callable[[], None] | None, turn: Turn | None = None) -> None:
    """Readies a worker: out of the terminal's reach, so that the parent alone says when to stop, and gone when the parent is."""
    os.setpgid(0, 0)
    take_gpu(turn)
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.SIG_IGN)
    torch.set_num_threads(threads)
    if prepare:
        prepare()
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """Ends this process with its parent, even one that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def stoppable(what: str) -> Iterator[None]:
    """SIGTERM ends the block with `Interrupted`: training writes a checkpoint first, anything else is dropped."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"{what} was stopped; the same command goes on")

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _work(folder: Path, piece: Piece) -> Done:
    try:
        with stoppable(piece.label):
            return work(folder, piece)
    except Interrupted as error:
        return Done(piece.key, stopped=str(error))


class Processes:
    """A pool of fresh processes on this machine; they take its GPUs in turn, and share them where there are fewer.

    Args:
        folder: the grid's folder.
        jobs: how many processes.
        threads: of each; by default the cores are shared out.
        prepare: called once in each process; a function of a module.
    """

    def __init__(self, folder: Path, jobs: int, threads: int | None = None, prepare: Callable[[], None] | None = None) -> None:
        self.folder, self.width, self.others = folder, jobs, set(multiprocessing.active_children())
        self.threads = threads or max(1, cores() // jobs)
        context = multiprocessing.get_context("spawn")
        turn = context.Value("i", 0)
        self.pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=begin, initargs=(self.threads, prepare, turn))

    def submit(self, piece: Piece) -> Future[Done]:
        """Begins a piece in a free process."""
        with threads_for_children(self.threads):
            return self.pool.submit(_work, self.folder, piece)

    def stop(self) -> None:
        """Asks every process for a checkpoint and an end."""
        for child in set(multiprocessing.active_children()) - self.others:
            child.terminate()
        self.close()

    def close(self) -> None:
        """Waits for all."""
        self.pool.shutdown(wait=True, cancel_futures=True)
