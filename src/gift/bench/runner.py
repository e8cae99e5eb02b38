"""Computes a plan's pieces: here, in several processes, or on a cluster. Which one makes no difference to any number."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from gift.bench.compute import remember
from gift.bench.pieces import Piece
from gift.bench.plan import Plan
from gift.bench.store import Store
from gift.bench.work import Work
from gift.errors import GiftError, Interrupted
from gift.files import write_text
from gift.training.progress import Reporter, Silent


@dataclass(frozen=True)
class Done:
    """How a piece ended. `error` is one line; a fault of ours has its `trace`, too."""

    key: str
    computed: bool = False
    error: str | None = None
    trace: str | None = None
    stopped: str | None = None


class Workers(Protocol):
    """Whoever computes pieces."""

    width: int

    def submit(self, piece: Piece) -> Future[Done]:
        """Begins a piece."""

    def stop(self) -> None:
        """Asks for checkpoints and an end, and waits for it."""

    def close(self) -> None:
        """Lets everything go."""


@dataclass
class Tally:
    """What a run did: how many pieces were computed and found, and why others are missing, by key."""

    computed: int = 0
    found: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def work(folder: Path, piece: Piece, reporter: Reporter | None = None) -> Done:
    """Computes one piece and says how it went; only Ctrl-C goes through."""
    try:
        _, computed = remember(Work(folder, piece, reporter))
    except Interrupted as error:
        return Done(piece.key, stopped=str(error))
    except GiftError as error:
        return Done(piece.key, error=" ".join(str(error).split()))
    except Exception as error:  # one broken cell must not take the grid with it
        return Done(piece.key, error=f"{type(error).__name__}: {' '.join(str(error).split())}", trace=traceback.format_exc())
    return Done(piece.key, computed)


class Here:
    """Computes in this process, one piece after another."""

    width = 1

    def __init__(self, folder: Path, reporter: Reporter | None = None) -> None:
        self.folder, self.reporter = folder, reporter

    def submit(self, piece: Piece) -> Future[Done]:
        """Computes it; the future is done."""
        future: Future[Done] = Future()
        future.set_result(work(self.folder, piece, self.reporter))
        return future

    def stop(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing to let go."""


def run(plan: Plan, folder: Path, workers: Workers, reporter: Reporter | None = None) -> Tally:
    """Computes what is missing, every piece after those that it rests on, none twice.

    A piece that fails takes those with it that rest on it; the rest goes on.

    Args:
        plan: what is wanted.
        folder: the grid's folder.
        workers: who computes; not closed.
        reporter: told of each piece.

    Raises:
        Interrupted: stopped on request; finished pieces and checkpoints are kept.
    """
    with _stopped_by_sigterm():
        job = _Job(plan, folder, workers, reporter or Silent())
        try:
            while job.waiting or job.running:
                job.begin()
                job.collect()
        except (KeyboardInterrupt, Interrupted):
            workers.stop()
            raise
        return job.tally


class _Job:
    """The state of one `run`."""

    def __init__(self, plan: Plan, folder: Path, workers: Workers, reporter: Reporter) -> None:
        self.folder, self.workers, self.reporter = folder, workers, reporter
        store = Store(folder / "pieces")
        self.ready = {key for key, piece in plan.pieces.items() if store.has(piece.kind, piece.content)}
        self.waiting = {key: piece for key, piece in plan.pieces.items() if key not in self.ready}
        self.running: dict[Future[Done], Piece] = {}
        self.total = len(self.waiting)
        self.tally = Tally(found=len(self.ready))

    def begin(self) -> None:
        """Gives out what can be computed while there are free hands, and gives up what can't any more."""
        for key, piece in list(self.waiting.items()):
            broken = next((p for p in piece.before if p.key in self.tally.failed), None)
            if broken:
                del self.waiting[key]
                self.tally.failed[key] = _because(self.tally.failed[broken.key], broken)
            elif len(self.running) < self.workers.width and all(p.key in self.ready for p in piece.before):
                del self.waiting[key]
                self.running[self.workers.submit(piece)] = piece

    def collect(self) -> None:
        """Waits for the next piece to end and writes down how it did.

        Raises:
            Interrupted: it was stopped on request.
        """
        if not self.running:
            return
        for future in wait(self.running, return_when=FIRST_COMPLETED).done:
            piece = self.running.pop(future)
            done = _result(future, piece)
            if done.stopped:
                raise Interrupted(done.stopped)
            if done.error:
                self.tally.failed[piece.key] = done.error
                if done.trace:
                    write_text(self.folder / "work" / f"{piece.key}.traceback.txt", done.trace)
            else:
                self.ready.add(piece.key)
                self.tally.computed += done.computed
                self.tally.found += not done.computed
            count = self.total - len(self.waiting) - len(self.running)
            outcome = f"failed: {done.error}" if done.error else "done"
            self.reporter.say(f"[{count}/{self.total}] {piece.label}: {outcome}")


def _result(future: Future[Done], piece: Piece) -> Done:
    """How a piece ended, also where its worker was lost.

    Raises:
        GiftError: all workers are lost.
    """
    try:
        return future.result()
    except BrokenExecutor as error:
        raise GiftError(
            f"a worker process was killed at '{piece.label}' or beside it (out of memory?); start again with fewer --jobs"
        ) from error
    except Exception as error:  # a cluster lost the worker or its machine
        return Done(piece.key, error=f"its worker was lost: {' '.join(str(error).split())[:200]}")


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _because(reason: str, broken: Piece) -> str:
    """Why a piece can't be computed: the first cause, told once."""
    return reason if reason.startswith("'") else f"'{broken.label}' failed: {reason}"
