"""Wall time and peak memory of a piece of work."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import psutil
import torch


class Meter:
    """A `with` block's cost: `seconds`, and `peak_mb`, the highest memory inside it: the GPU's where the block takes any, else the
    process's resident size.

    The resident size is sampled, because the kernel's own high-water mark never falls and would hand one run's peak to the next.
    """

    def __init__(self, pause: float = 0.02) -> None:
        self.seconds = 0.0
        self.peak_mb = 0.0
        self._pause = pause
        self._stop = threading.Event()
        self._process = psutil.Process()
        self._on_gpu_before = 0

    def _sample(self) -> None:
        self.peak_mb = max(self.peak_mb, self._process.memory_info().rss / 2**20)

    def _watch(self) -> None:
        while not self._stop.wait(self._pause):
            self._sample()

    def __enter__(self) -> Self:
        """Starts the clock."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._on_gpu_before = torch.cuda.memory_allocated()
        self._sample()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stops it."""
        self.seconds = time.perf_counter() - self._began
        self._stop.set()
        self._thread.join()
        self._sample()
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > self._on_gpu_before:
            self.peak_mb = torch.cuda.max_memory_allocated() / 2**20
