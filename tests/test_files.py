"""Files and folders are whole or absent, whatever fails in between (field failures 13, 23, 24)."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gift.errors import GiftError
from gift.files import LOCK, exchanged, owned, sweep, whole_folder, write_bytes, write_json, write_text
from gift.training.checkpoint import Checkpoints


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def killed(child: Callable[[], object]) -> None:
    """Runs `child` in a forked process that is expected to kill itself."""
    process = os.fork()
    if process == 0:
        try:
            child()
        finally:
            os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=300), old=st.none() | st.binary(max_size=50))
def test_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, data: bytes, old: bytes | None) -> None:
    file = tmp_path_factory.mktemp("w") / "in ner" / "übung.bin"
    if old is not None:
        write_bytes(file, old)
    write_bytes(file, data)
    assert tree(file.parent) == {"übung.bin": data}


@pytest.mark.parametrize("call", ["os.replace", "os.fsync", "tempfile.mkstemp"])
def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with monkeypatch.context() as patch:
        patch.setattr(call, full_disk)
        with pytest.raises(GiftError, match=r"can't write .*a\.txt: No space left") as caught:
            write_text(file, "new")
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == {"a.txt": b"old"}


def test_a_file_for_a_parent_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(GiftError, match="can't write"):
        write_text(tmp_path / "a" / "b.txt", "x")


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_json_has_no_nan(tmp_path: Path, value: Any) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"ü": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, value)
    assert file.read_text(encoding="utf-8") == '{\n "ü": 1\n}\n'


@pytest.mark.parametrize("existing", [False, True])
def test_a_folder_is_replaced_as_a_whole(tmp_path: Path, existing: bool) -> None:
    target = tmp_path / "deep" / "out"
    if existing:
        target.mkdir(parents=True)
        (target / "old.txt").write_text("old")
    with whole_folder(target) as part:
        (part / "sub").mkdir()
        (part / "sub" / "new.txt").write_text("new")
        assert (target / "old.txt").exists() is existing
    assert tree(tmp_path) == {"deep/out/sub/new.txt": b"new"}
    assert [p.name for p in target.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, GiftError])
def test_a_failed_block_leaves_the_old_folder_alone(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")

    def fail() -> None:
        with whole_folder(target) as part:
            (part / "new.txt").write_text("new")
            raise error("no")

    with pytest.raises(GiftError if error is OSError else error):
        fail()
    assert tree(tmp_path) == {"out/old.txt": b"old"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_rename_leaves_the_old_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")
    calls, real = [], os.replace

    def replace(*args: Any) -> None:
        calls.append(args)
        return full_disk() if len(calls) == failing else real(*args)

    monkeypatch.setattr("gift.files.exchanged", lambda one, other: False)
    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(GiftError, match="can't write"), whole_folder(target) as part:
        (part / "new.txt").write_text("new")
    assert tree(tmp_path) == {"out/old.txt": b"old"}


def test_a_killed_writer_leaves_the_old_folder_alone(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")

    def child() -> None:
        with whole_folder(target) as part:
            (part / "new.txt").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    killed(child)
    assert tree(target) == {"old.txt": b"old"}
    with whole_folder(target) as part:
        (part / "new.txt").write_text("whole")
    assert tree(target) == {"new.txt": b"whole"}


@pytest.mark.parametrize("context", [whole_folder, owned])
def test_a_file_is_not_a_folder(tmp_path: Path, context: Any) -> None:
    (tmp_path / "a").write_text("mine")
    for target, words in ((tmp_path / "a", "is a file"), (tmp_path / "a" / "b", "can't write")):
        with pytest.raises(GiftError, match=words), context(target):
            pass
    assert (tmp_path / "a").read_text() == "mine"


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with owned(folder) as held:
        assert held == folder
        with pytest.raises(GiftError, match="in use by another gift run"), owned(folder):
            pass
        assert (folder / LOCK).exists()
    assert not (folder / LOCK).exists()
    with pytest.raises(ZeroDivisionError), owned(folder):
        raise ZeroDivisionError
    with owned(folder):
        pass


def test_a_killed_owner_locks_nobody_out(tmp_path: Path) -> None:
    def child() -> None:
        with owned(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    killed(child)
    assert (tmp_path / LOCK).exists()
    with owned(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_second_process_is_told_and_a_killed_one_locks_nobody_out(tmp_path: Path) -> None:
    ear, mouth = os.pipe()
    process = os.fork()
    if process == 0:
        with owned(tmp_path):
            os.write(mouth, b"!")
            signal.pause()
    os.read(ear, 1)
    try:
        with pytest.raises(GiftError, match="in use by another gift run"), owned(tmp_path):
            pass
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    with owned(tmp_path):
        pass


def test_two_folders_swap_their_names_in_one_step(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    if not exchanged(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this system or file system can't")
    assert tree(tmp_path) == {"a/name": b"b", "b/name": b"a"}
    assert not exchanged(tmp_path / "a", tmp_path / "none")


def test_a_folder_that_a_killed_run_was_replacing_is_put_back(tmp_path: Path) -> None:
    for name in (".out-old-abcdefgh", ".out-part-abcdefgh", ".other-part-abcdefgh", ".out-old-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    rest = {".other-part-abcdefgh/name": b".other-part-abcdefgh", ".out-old-mine/name": b".out-old-mine"}
    sweep(tmp_path, "out")
    assert tree(tmp_path) == {"out/name": b".out-old-abcdefgh", **rest}
    (tmp_path / ".out-old-abcdefgh").mkdir()
    sweep(tmp_path, "out")
    assert tree(tmp_path) == {"out/name": b".out-old-abcdefgh", **rest}
    assert not (tmp_path / ".out-old-abcdefgh").exists()


def test_a_kill_between_the_two_steps_of_a_replacement_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two names can't be swapped in one step there is a moment at which neither folder has the name."""
    target, real = tmp_path / "out", os.replace
    target.mkdir()
    (target / "a").write_text("old")
    monkeypatch.setattr("gift.files.exchanged", lambda one, other: False)

    def child() -> None:
        def replace(*names: Any) -> None:
            real(*names)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr("os.replace", replace)
        with whole_folder(target) as part:
            (part / "a").write_text("new")

    killed(child)
    assert not target.exists()
    with whole_folder(target) as part:
        assert tree(target) == {"a": b"old"}
        (part / "a").write_text("newest")
    assert tree(tmp_path) == {"out/a": b"newest"}


def test_a_live_writers_part_is_left_alone(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as part:
        (part / "a").write_text("x")
        sweep(tmp_path, "out")
        assert tree(part) == {"a": b"x"}
        (tmp_path / ".out-old-").mkdir()
        old = tmp_path / f".out-old-{part.name[-8:]}"
        (tmp_path / ".out-old-").rename(old)
        sweep(tmp_path, "out")
        assert old.exists()
    assert tree(tmp_path / "out") == {"a": b"x"}


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "a", b"old")
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=3 * 10**9))
    write_bytes(tmp_path / "a", b"new")
    told = r"no room for .*new/b: 4.0 GB are needed and 3.0 GB are free; .*free some room"
    with pytest.raises(GiftError, match=told), whole_folder(tmp_path / "new" / "b", 4 * 10**9):
        pytest.fail("the block was entered")
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1))
    with pytest.raises(GiftError, match="no room for"):
        write_bytes(tmp_path / "a", b"newest")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_keeps_what_was_there(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate does not know what others write; a full disk in the middle of a write is one line, too."""
    kept = Checkpoints(small_disk / "steps", {})
    kept.save(1, {"w": torch.zeros(100_000)})
    write_bytes(small_disk / "a", b"old")
    with pytest.raises(GiftError, match=r"no room for .*step-00000002"):
        kept.save(2, {"w": torch.zeros(200_000)})
    monkeypatch.setattr("gift.files.need_room", lambda target, size: None)
    before = tree(small_disk)
    with pytest.raises(GiftError, match=r"can't write .*step-00000002: No space left on device; free some room"):
        kept.save(2, {"w": torch.zeros(200_000)})
    with pytest.raises(GiftError, match=r"can't write .*a: No space left on device"):
        write_bytes(small_disk / "a", bytes(10**6))
    with pytest.raises(GiftError, match=r"can't write .*new: .*No space left on device"), whole_folder(small_disk / "new") as part:
        save_file({"w": torch.zeros(200_000)}, part / "x.safetensors")
    assert tree(small_disk) == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["a", "steps"]
    assert kept.latest() is not None


def test_a_lock_whose_name_was_taken_away_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run ends, and removes the lock file, between this one's open and its flock."""
    real = fcntl.flock

    def late(handle: TextIOWrapper, how: int) -> None:
        (tmp_path / LOCK).unlink()
        real(handle, how)

    monkeypatch.setattr("gift.files.fcntl.flock", late)
    with pytest.raises(GiftError, match="in use by another gift run"), owned(tmp_path):
        pass
