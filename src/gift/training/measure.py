"""Wall time and peak memory of a piece of work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
        self._earlier = (0.0, 0.0)
        self._resident = 0.0
        self._on_gpu = 0
        self._pause = pause
        self._stop = threading.Event()
        self._busy = threading.Event()
        self._process = psutil.Process()
        self._on_gpu_before = 0

    def _sample(self) -> None:
        self._resident = max(self._resident, self._process.memory_info().rss / 2**20)

    def _sample_gpu(self) -> None:
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > self._on_gpu_before:
            self._on_gpu = max(self._on_gpu, torch.cuda.max_memory_allocated())

    def _watch(self) -> None:
        while not self._stop.wait(self._pause):
            if self._busy.is_set():
                self._sample()

    def __enter__(self) -> Self:
        """Starts the clock."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._on_gpu_before = torch.cuda.memory_allocated()
        self._sample()
        self._busy.set()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stops it."""
        self.seconds, self.peak_mb = self.so_far()
        self._stop.set()
        self._thread.join()

    def so_far(self) -> tuple[float, float]:
        """Seconds and peak memory until now."""
        seconds = self._earlier[0] + time.perf_counter() - self._began
        self._sample()
        self._sample_gpu()
        return seconds, max(self._earlier[1], self._on_gpu / 2**20 if self._on_gpu else self._resident)

    def take_up(self, seconds: float, peak_mb: float) -> None:
        """Goes on from what `so_far` gave in a run that was interrupted, as though there had been no break."""
        self._earlier = (self._earlier[0] + max(0.0, seconds - self.so_far()[0]), max(self._earlier[1], peak_mb))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A part of the block that is none of its cost."""
        self.so_far()  # a peak on the GPU, which is forgotten below
        began = time.perf_counter()
        self._busy.clear()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            self._began += time.perf_counter() - began
            self._busy.set()
