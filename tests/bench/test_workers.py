"""Which GPU a piece gets, of several processes or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gift.bench import processes, ray_runner
from gift.bench.pieces import Piece
from gift.bench.processes import take_gpu
from gift.bench.ray_runner import RayWorkers, gpu_share


@pytest.mark.parametrize(("gpus", "taken"), [(0, []), (1, []), (3, [0, 1, 2, 0])])
def test_processes_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch, gpus: int, taken: list[int]) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    turn = multiprocessing.get_context("spawn").Value("i", 0)
    for _ in range(4):
        take_gpu(turn)
    assert seen == taken
    take_gpu(None)
    assert seen == taken, "the demo's second process stays where the first one is"


def test_a_pools_processes_share_one_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(processes, "ProcessPoolExecutor", lambda jobs, **rest: given.update(rest))
    processes.Processes(tmp_path, 2)
    assert given["initializer"] is processes.begin
    seen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    monkeypatch.setattr(os, "setpgid", lambda *numbers: None)
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    monkeypatch.setattr(processes, "_follow", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    for _ in range(2):
        processes.begin(*given["initargs"])
    assert seen == [0, 1]


@given(gpus=st.integers(1, 64), width=st.integers(1, 1024))
def test_a_share_lets_as_many_run_at_once_as_are_wanted(gpus: int, width: int) -> None:
    share = gpu_share(gpus, width)
    assert 0 < share <= 1
    assert int(10_000 // round(10_000 * share)) * gpus >= width


def test_without_a_gpu_none_is_asked_for() -> None:
    assert gpu_share(0, 4) == 0


@pytest.mark.slow
def test_pieces_on_ray_share_its_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cluster's GPUs are Ray's word alone; a piece tells which of them it may see, once all four are there."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'gift-diffusion[ray]'")

    def see(folder: Path, piece: str, threads: int, prepare: None) -> str | None:
        (folder / piece).touch()
        deadline = time.monotonic() + 60
        while len(list(folder.iterdir())) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        return os.environ.get("CUDA_VISIBLE_DEVICES") if len(list(folder.iterdir())) == 4 else "alone"

    monkeypatch.setattr(ray, "init", partial(ray.init, num_gpus=2))
    monkeypatch.setattr(ray_runner, "_work", see)
    workers: Any = RayWorkers(tmp_path, "local", jobs=4)
    try:
        seen = [workers.submit(cast("Piece", str(n))) for n in range(4)]
        assert sorted(future.result(timeout=120) for future in seen) == ["0", "0", "1", "1"]
    finally:
        workers.close()
