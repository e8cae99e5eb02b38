"""The meter: wall time and the block's own peak, not an earlier one's."""

from __future__ import annotations

import threading
import time

import numpy as np
import psutil
import pytest
import torch

from gift.training.measure import Meter

GPU_BEFORE = 48 << 20


def with_gpu(monkeypatch: pytest.MonkeyPatch, peak: int) -> None:
    """As on a machine with a GPU that holds `GPU_BEFORE` bytes, and `peak` bytes at most from here on."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: GPU_BEFORE)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak)


def test_time_is_measured() -> None:
    with Meter() as meter:
        time.sleep(0.05)
    assert 0.05 <= meter.seconds < 5


def test_a_peak_is_seen_and_not_handed_on() -> None:
    size = 200
    with Meter(pause=0.001) as small:
        pass
    with Meter(pause=0.001) as large:
        block = np.ones(size << 17)  # `size` MB, touched
        time.sleep(0.05)
        del block
    with Meter(pause=0.001) as after:
        pass
    assert large.peak_mb > small.peak_mb + size / 2
    assert after.peak_mb < large.peak_mb - size / 2


def test_a_block_on_a_gpu_is_told_by_what_it_takes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, GPU_BEFORE + (16 << 20))
    with Meter() as meter:
        pass
    assert meter.peak_mb == 64


def test_a_block_on_the_cpu_of_a_machine_with_a_gpu_is_told_by_resident_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, GPU_BEFORE)
    with Meter() as meter:
        pass
    assert meter.peak_mb == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.5)


def test_the_watcher_ends_even_after_an_error() -> None:
    before = threading.active_count()
    meter = Meter()
    with pytest.raises(ZeroDivisionError), meter:
        raise ZeroDivisionError
    assert threading.active_count() == before
    assert meter.peak_mb > 0


def test_what_is_aside_costs_nothing() -> None:
    with Meter(pause=0.001) as meter:
        time.sleep(0.02)
        with meter.aside():
            block = np.ones(200 << 17)  # 200 MB, touched
            time.sleep(0.2)
            del block
    with Meter(pause=0.001) as after:
        pass
    assert 0.02 <= meter.seconds < 0.15
    assert meter.peak_mb < after.peak_mb + 100
    with pytest.raises(ZeroDivisionError), Meter() as meter, meter.aside():
        raise ZeroDivisionError
    assert meter.seconds < 0.1


def test_a_peak_on_a_gpu_before_something_aside_is_kept_and_that_of_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"now": GPU_BEFORE}
    with_gpu(monkeypatch, 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peaks["now"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: peaks.update(now=GPU_BEFORE))
    with Meter() as meter:
        peaks["now"] = GPU_BEFORE + (16 << 20)
        with meter.aside():
            peaks["now"] = GPU_BEFORE + (512 << 20)
        peaks["now"] = GPU_BEFORE + (4 << 20)
    assert meter.peak_mb == 64


def test_a_cost_is_taken_up_as_though_there_had_been_no_break() -> None:
    with Meter() as meter:
        meter.take_up(100.0, 1e6)
        assert 100 <= meter.so_far()[0] < 101
        meter.take_up(100.0, 5.0)  # a later stage's, which holds the first's
        meter.take_up(130.0, 5.0)
    assert 130 <= meter.seconds < 131
    assert meter.peak_mb == 1e6
