"""Checkpoints are whole or absent, and only this run's are taken up (field failures 23, 24, 26 to 29)."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from gift.errors import GiftError
from gift.files import whole_folder
from gift.training.checkpoint import MARKER, Checkpoints, clear_below, flatten, unflatten
from gift.training.measure import Meter

SETTINGS = {"rate": 1e-3, "kinds": ("full", "lora")}


def at(step: int) -> dict[str, Any]:
    return {"w": torch.full((4,), float(step)), "n": step}


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "work", SETTINGS)


def names(kept: Checkpoints) -> list[str]:
    return sorted(p.name for p in kept.folder.iterdir())


def newest(kept: Checkpoints) -> int | None:
    found = kept.latest()
    if found is None:
        return None
    assert torch.equal(found[1]["w"], at(found[0])["w"])
    return found[0]


dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
shapes = st.lists(st.integers(0, 3), max_size=3)
tensors = st.builds(
    lambda dtype, shape, seed: (torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed))[..., 0] * 3).to(dtype),
    dtypes,
    shapes,
    st.integers(0, 9),
)
leaves = tensors | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
keys = st.text(max_size=4) | st.integers(-5, 5) | st.sampled_from(["$tensor", "$dict", "$list", "t.0"])
states = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def alike(a: Any, b: Any) -> bool:
    """Equal, where a tuple may have become a list."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list) and len(a) == len(b) and all(map(alike, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=150, deadline=None)
@given(states)
def test_nested_states_come_back(state: Any) -> None:
    found: dict[str, torch.Tensor] = {}
    layout = flatten(state, found)
    assert alike(state, unflatten(layout, load(save(found))))


def test_a_state_comes_back_from_the_disk(kept: Checkpoints) -> None:
    shared = torch.arange(6.0)
    state = {
        **at(3),
        "o": {0: {"m": shared.view(2, 3).t(), "again": shared, "part": shared[2:4], "none": None}},
        "h": [{"loss": 0.1 + 0.2}],
    }
    kept.save(3, state)
    found = kept.latest()
    assert found is not None
    assert found[0] == 3
    assert alike(state, found[1])


def test_exactly_the_newest_stay(tmp_path: Path) -> None:
    for keep in (1, 2, 3):
        kept = Checkpoints(tmp_path / str(keep), SETTINGS, keep=keep)
        for step in (2, 4, 6, 8):
            kept.save(step, at(step))
        assert names(kept) == [f"step-{step:08d}" for step in (2, 4, 6, 8)[-keep:]]
        assert newest(kept) == 8


def test_other_names_are_ignored_and_left(kept: Checkpoints) -> None:
    kept.save(5, at(5))
    others = ["backup-step-00000009", "step-9", "step-00000009.bak", "step-000000009", "checkpoint-9"]
    for name in others:
        shutil.copytree(kept.folder / "step-00000005", kept.folder / name)
    (kept.folder / "step-00000010").mkdir()  # without a marker
    (kept.folder / "step-00000011").write_text("a file")
    assert newest(kept) == 5
    kept.save(6, at(6))
    kept.save(7, at(7))
    assert newest(kept) == 7
    kept.clear()
    assert names(kept) == sorted([*others, "step-00000010", "step-00000011"])


def test_nothing_is_found_where_there_is_nothing(kept: Checkpoints) -> None:
    assert kept.latest() is None
    kept.clear()
    kept.save(1, at(1))
    kept.clear()
    assert not kept.folder.exists()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "spoil", [cut, flip, Path.unlink, lambda file: file.write_bytes(b""), lambda file: file.write_bytes(b"[]")]
)
@pytest.mark.parametrize("name", ["state.safetensors", "layout.json", MARKER])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(kept: Checkpoints, name: str, spoil: Callable[[Path], object]) -> None:
    kept.save(2, at(2))
    kept.save(4, at(4))
    spoil(kept.folder / "step-00000004" / name)
    if name == MARKER and spoil is Path.unlink:  # then it is none at all
        assert newest(kept) == 2
    else:
        with pytest.warns(UserWarning, match="step-00000004 is damaged"):
            assert newest(kept) == 2
    shutil.rmtree(kept.folder / "step-00000002")
    kept.save(4, at(4))
    assert newest(kept) == 4


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rate": 2e-3, "kinds": ("full", "lora")}, r"other settings \(rate: 0.001 -> 0.002\)"),
        ({"rate": 1e-3, "kinds": ("full",)}, r'\(kinds: \["full", "lora"\] -> \["full"\]\)'),
        ({"rate": 1e-3, "kinds": ("full", "dora")}, r'\(kinds.2: "lora" -> "dora"\)'),
        ({"rate": 1e-3}, r"kinds: .* -> null"),
        ({**SETTINGS, "new": {"a": 1}}, r"\(new.a: null -> 1\)"),
        ({**SETTINGS, **{f"new {i}": "x" * 200 for i in range(9)}}, r"\.\.\., and 5 more\)"),
    ],
)
def test_other_settings_are_refused(kept: Checkpoints, changed: dict[str, Any], words: str) -> None:
    kept.save(2, at(2))
    with pytest.raises(GiftError, match=words) as caught:
        Checkpoints(kept.folder, changed).latest()
    assert "\n" not in str(caught.value)
    assert newest(Checkpoints(kept.folder, {"kinds": ["full", "lora"], "rate": 1e-3})) == 2


@pytest.mark.parametrize("call", ["os.replace", "os.fsync", "tempfile.mkdtemp"])
def test_a_save_that_fails_keeps_the_old_ones(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept.save(2, at(2))
    kept.save(4, at(4))
    with monkeypatch.context() as patch:
        patch.setattr(call, fail)
        with pytest.raises(GiftError, match="No space left"):
            kept.save(6, at(6))
    assert names(kept) == ["step-00000002", "step-00000004"]
    assert newest(kept) == 4


def test_a_disk_without_room_keeps_the_old_ones(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.save(2, at(2))
    size = sum(file.stat().st_size for file in (kept.folder / "step-00000002").iterdir())
    usage = SimpleNamespace(free=size - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    with pytest.raises(GiftError, match=r"no room for .*step-00000004: 0.0 MB are needed and 0.0 MB are free; nothing was written"):
        kept.save(4, at(4))
    assert names(kept) == ["step-00000002"]
    usage.free = size
    kept.save(4, at(4))
    assert newest(kept) == 4


def test_what_a_kill_leaves_is_passed_over_and_removed_but_not_what_a_live_run_writes(kept: Checkpoints) -> None:
    """The first half of a save, a removal that was cut short, and a save that is under way."""
    kept.save(2, at(2))
    dead = [".step-00000004-part-abcdefg0", ".step-00000001-part-0123abcd"]
    others = [".step-00000004-part-abc", ".backup-step-9-part-abcdefg0", ".part-abcdefg0"]
    for name in (*dead, *others):
        shutil.copytree(kept.folder / "step-00000002", kept.folder / name)
    with whole_folder(kept.folder / "step-00000006") as part:
        assert newest(kept) == 2
        assert names(kept) == sorted([*others, part.name, "step-00000002"])
    assert clear_below(kept.folder.parent) == 1
    assert names(kept) == sorted([*others, "step-00000006"])


def test_the_cost_of_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    with Meter() as first:
        first.take_up(50.0, 1e6)
        Checkpoints(tmp_path, {}, meter=first).save(1, {})
    with Meter() as second:
        assert Checkpoints(tmp_path, {}, meter=second).latest() is not None
    assert 50 <= second.seconds < 55
    assert second.peak_mb == 1e6
    Checkpoints(tmp_path, {}).save(2, {})  # of an earlier version, which kept no cost
    with Meter() as third:
        assert Checkpoints(tmp_path, {}, meter=third).latest() == (2, {})
    assert third.seconds < 5
