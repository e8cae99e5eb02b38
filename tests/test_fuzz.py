"""A short run of the fuzzer, and that it finds what it looks for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests import fuzz
from tests.mutations import PICTURES, TEXTS, mutated

KINDS = [*PICTURES, *TEXTS]


def test_damaged_files_are_loaded_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = fuzz.main(["--inputs", "500", "--seconds", "30", "--keep", str(tmp_path / "failures")])
    said = capsys.readouterr().out
    assert code == 0, said
    *lines, total = said.splitlines()
    assert [line.split()[0] for line in lines] == KINDS
    for line in lines:
        _, tried, _, loaded, _, refused, _, failed, _ = line.split()[:9]
        assert int(tried) == int(loaded) + int(refused) >= 45, line
        assert int(refused) > 0, line
        assert failed == "0"
    assert total == "500 inputs, seed 0: 0 failed"


def test_the_same_seed_gives_the_same_inputs() -> None:
    inputs = [mutated(3, i, KINDS) for i in range(110)]
    assert inputs == [mutated(3, i, KINDS) for i in range(110)]
    assert inputs != [mutated(4, i, KINDS) for i in range(110)]


def test_errors_hangs_memory_and_crashes_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(kind: str, data: bytes, folder: Path) -> None:
        if kind == "png":
            raise ValueError("no error of ours")
        if kind == "jpeg":
            time.sleep(60)
        if kind == "gif":
            bytearray((fuzz.MEMORY + 500) * 2**20)
        if kind == "bmp":
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(fuzz, "read", read)
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    keep = tmp_path / "failures"
    code = fuzz.main(["--inputs", "5", "--kinds", "png", "jpeg", "gif", "bmp", "tiff", "--keep", str(keep)])
    said = capsys.readouterr().out
    assert code == 1
    assert "FAILED png, seed 0, input 0: ValueError: no error of ours" in said
    assert "FAILED jpeg, seed 0, input 1: no answer in 1 s" in said
    assert "FAILED gif, seed 0, input 2: MemoryError" in said
    assert f"FAILED bmp, seed 0, input 3: the process ended, signal {int(signal.SIGKILL)}" in said
    assert "5 inputs, seed 0: 4 failed" in said
    kinds = ["png", "jpeg", "gif", "bmp", "tiff"]
    kept = {path.name: path.read_bytes() for path in keep.iterdir()}
    assert kept == {f"{kind}-0-{i}": mutated(0, i, kinds)[1] for i, kind in enumerate(kinds) if kind != "tiff"}
