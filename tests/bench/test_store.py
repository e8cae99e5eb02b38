"""Finished pieces: found again by all that they depend on, whole or computed anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from gift.bench.store import Store
from gift.errors import GiftError

PIECE: dict[str, Any] = {
    "images": torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2),
    "scores": [0.0, 1.0, 0.1],
    "seen": [[0, {"latents": torch.tensor([1.5, -0.0])}], [3, {"latents": torch.zeros(0)}]],
    "note": "é",
    "nothing": None,
    "empty": [],
}


class Counted:
    """A piece that counts how often it is computed."""

    def __init__(self, value: dict[str, Any] | None = None) -> None:
        self.value, self.times = PIECE if value is None else value, 0

    def __call__(self) -> dict[str, Any]:
        self.times += 1
        return self.value


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_a_piece_is_computed_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    compute = Counted()
    first = Store(tmp_path).remember("attack/gift/lora", {"seed": 0}, compute)
    second = Store(tmp_path).remember("attack/gift/lora", {"seed": 0}, compute)
    assert compute.times == 1
    assert same(first, PIECE)
    assert same(second, PIECE)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("a", {"seed": 1}), ("b", {"seed": 0}), ("a", {"seed": "0"}), ("a", {}), ("a", {"seed": 0, "more": None})],
)
def test_another_name_or_setting_is_another_piece(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    store = Store(tmp_path)
    store.remember("a", {"seed": 0}, Counted({"value": 1}))
    assert store.remember(name, settings, Counted({"value": 2})) == {"value": 2}
    assert store.remember("a", {"seed": 0}, Counted({"value": 3})) == {"value": 1}


def test_the_order_of_settings_is_no_setting(tmp_path: Path) -> None:
    compute = Counted()
    Store(tmp_path).remember("a", {"x": 1, "y": 2}, compute)
    Store(tmp_path).remember("a", {"y": 2, "x": 1}, compute)
    assert compute.times == 1


def test_names_with_a_slash_and_a_dash_are_not_mixed_up(tmp_path: Path) -> None:
    Store(tmp_path).remember("a/b", {}, Counted({"value": 1}))
    assert Store(tmp_path).remember("a-b", {}, Counted({"value": 2})) == {"value": 2}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:-1],
        lambda data: b"\0" * len(data),
        lambda data: save({"t": torch.zeros(1)}),
        lambda data: save({"t": torch.zeros(1)}, metadata={"layout": "{"}),
        lambda data: save({"t": torch.zeros(1)}, metadata={"layout": '{"$tensor": "gone"}'}),
        lambda data: save({"t": torch.zeros(1)}, metadata={"other": "x"}),
    ],
    ids=["empty", "header cut", "one byte short", "zeros", "no layout", "broken layout", "lost tensor", "other metadata"],
)
def test_a_damaged_piece_is_computed_again_and_mended(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    compute = Counted()
    Store(tmp_path).remember("a", {}, compute)
    (file,) = tmp_path.iterdir()
    file.write_bytes(spoil(file.read_bytes()))
    assert same(Store(tmp_path).remember("a", {}, compute), PIECE)
    assert same(Store(tmp_path).remember("a", {}, compute), PIECE)
    assert compute.times == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, ValueError, KeyError, GiftError])
def test_a_piece_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> dict[str, Any]:
        raise error("stop")

    with pytest.raises(error, match="stop"):
        Store(tmp_path).remember("a", {}, fail)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_folder_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(GiftError, match="No space left"):
        Store(tmp_path / "pieces").remember("a", {}, Counted())
    assert not list((tmp_path / "pieces").iterdir())
