"""Pieces on a Ray cluster. Every machine must see the grid's folder and the models under the same paths."""

from __future__ import annotations

import logging
import math
import re
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch

from gift.bench.pieces import Piece
from gift.bench.processes import THREADS, cores
from gift.bench.runner import Done, work
from gift.errors import GiftError

LOCAL = "local"
ADDRESS = re.compile(r"(local|auto|(ray://)?[^\s/:]+:\d{1,5})")


def check_address(address: str) -> None:
    """Verifies the form of a cluster's address.

    Raises:
        GiftError: it is none.
    """
    if not ADDRESS.fullmatch(address):
        raise GiftError(f"'{address}' is no address of a Ray cluster; give 'local', 'auto' or HOST:PORT")


def gpu_share(gpus: float, width: int) -> float:
    """What a piece asks of a GPU, so that `width` of them run at once on so many; nothing where there is none.

    From a task that asks for none Ray hides every GPU, or, in later versions, none, so that all pieces would take the first.
    """
    if gpus < 1:
        return 0.0
    together = math.ceil(width / int(gpus))
    return math.floor(10_000 / together) / 10_000  # Ray counts in ten-thousandths


def _work(folder: Path, piece: Piece, threads: int, prepare: Callable[[], None] | None) -> Done:
    """`work` in a worker of the cluster."""
    torch.set_num_threads(threads)
    if prepare:
        prepare()
    return work(folder, piece)


class RayWorkers:
    """A connection to a cluster, or one that is started on this machine. Where it has GPUs, the pieces share them.

    Args:
        folder: the grid's folder, on a file system that all machines share.
        address: 'local' starts a cluster here and ends it; 'auto' or 'host:port' joins one.
        jobs: how many pieces at once; by default as many as the cluster has CPUs for.
        threads: of each piece.
        prepare: called before each piece; a function of a module.

    Raises:
        GiftError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self,
        folder: Path,
        address: str = LOCAL,
        jobs: int | None = None,
        threads: int = 1,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise GiftError("--ray needs Ray: pip install 'gift-diffusion[ray]'") from error
        self.ray: Any = ray
        self.folder, self.threads, self.prepare = folder.resolve(), threads, prepare
        variables = dict.fromkeys(THREADS, str(threads))
        here: dict[str, Any] = {"num_cpus": jobs or max(1, cores() // threads), "include_dashboard": False}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                **(here if address == LOCAL else {"address": address}),
                runtime_env={"env_vars": variables},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray's errors on a missing cluster have no common ancestor
            reason = " ".join(str(error).split())[:160]
            raise GiftError(f"no Ray cluster at '{address}' ({reason}); give 'local', 'auto' or HOST:PORT") from error
        finally:
            if threading.current_thread() is threading.main_thread() and handler is not None:
                signal.signal(signal.SIGTERM, handler)  # Ray's own would end this process before the pieces are stopped
        share = 1 if address == LOCAL else threads
        there = ray.cluster_resources()
        self.width = jobs or max(1, int(there.get("CPU", 1)) // share)
        self.task = ray.remote(num_cpus=share, num_gpus=gpu_share(there.get("GPU", 0), self.width), max_retries=0)(_work)
        self.running: list[Any] = []

    def submit(self, piece: Piece) -> Future[Done]:
        """Begins a piece somewhere."""
        reference = self.task.remote(self.folder, piece, self.threads, self.prepare)
        self.running.append(reference)
        future: Future[Done] = reference.future()
        return future

    def stop(self) -> None:
        """Interrupts every piece: training writes a checkpoint first."""
        for reference in self.running:
            self.ray.cancel(reference)
        self.ray.wait(self.running, num_returns=len(self.running), timeout=60)

    def close(self) -> None:
        """Leaves the cluster; ends it if it was started here."""
        self.ray.shutdown()
