"""A short hunt of `python -m tests.kills`: SIGKILL anywhere in a run or in the writing of a result (field failures 22, 23)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills import WRITERS, hunt_runs, hunt_writers


@pytest.mark.slow
def test_a_run_that_is_killed_over_and_over_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    found = hunt_runs(8, seed=1, work=tmp_path, per_run=4)
    assert found.failures == []
    assert (found.kills, found.damaged) == (8, 0)
    assert found.ends >= 2
    assert found.writing > 0
    assert found.resumed > 0
    assert found.half > 0


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_is_killed_leaves_the_old_or_the_new(tmp_path: Path, name: str) -> None:
    found = hunt_writers(name, 15, seed=1, work=tmp_path)
    assert found.failures == []
    assert (found.kills, found.ends) == (15, 1)
    assert found.writing > 0
    assert found.half > 0
    assert name == "folder in two steps" or found.missing == 0
