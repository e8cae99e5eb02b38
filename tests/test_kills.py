"""A short hunt of `python -m tests.kills`: SIGKILL anywhere in a run or in the writing of a result (field failures 22, 23)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.kills import WRITERS, Counts, add, hunt_runs, hunt_writers

ROUNDS = 6
"""Where a kill lands is chance; so many rounds are given to it before a kind of moment counts as never met."""

SYNC = 0.01
"""Seconds that the disk takes for each file, of which a kill must find some half written; other tests' disk takes none."""


@pytest.fixture(autouse=True)
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: time.sleep(SYNC))


@pytest.mark.slow
def test_a_run_that_is_killed_over_and_over_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    found = Counts()
    for seed in range(ROUNDS):
        (tmp_path / f"{seed}").mkdir()
        add(found, hunt_runs(8, seed=seed, work=tmp_path / f"{seed}", per_run=4))
        assert found.failures == []
        assert (found.kills, found.damaged) == (8 * (seed + 1), 0)
        assert found.ends >= 2 * (seed + 1)
        if found.writing and found.resumed and found.half:
            return
    raise AssertionError(f"no kill met a save, or none was gone on from: {found}")


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_is_killed_leaves_the_old_or_the_new(tmp_path: Path, name: str) -> None:
    found = Counts()
    for seed in range(ROUNDS):
        (tmp_path / f"{seed}").mkdir()
        add(found, hunt_writers(name, 15, seed=seed, work=tmp_path / f"{seed}"))
        assert found.failures == []
        assert (found.kills, found.ends) == (15 * (seed + 1), seed + 1)
        assert name == "folder in two steps" or found.missing == 0
        if found.writing and found.half:
            return
    raise AssertionError(f"no kill met a write: {found}")
