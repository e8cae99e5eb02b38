"""Augmentation: in range, repeatable, and nothing at all at zero strength."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from gift.data.art import load_art
from gift.data.augment import coarsen, degrade, move, recolour, uniform
from gift.pixels import as_float

Change = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
CHANGES: dict[str, Change] = {
    "move": move,
    "move far": partial(move, degrees=180, scale=(0.3, 3), shift=0.5),
    "recolour": recolour,
    "recolour hard": partial(recolour, strength=1.0),
    "coarsen": coarsen,
    "coarsen hard": partial(coarsen, factors=(0.25, 0.1)),
    "degrade": degrade,
    "degrade hard": partial(degrade, noise=2.0),
}
STILL: dict[str, Any] = {"degrees": 0.0, "scale": (1.0, 1.0), "shift": 0.0}
TABLE = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return as_float(torch.cat([load_art().atlas("noto")[:12], load_art().atlas("monotone")[:12]]))


@TABLE
@pytest.mark.parametrize("seed", range(3))
def test_the_output_stays_in_range(change: Change, images: torch.Tensor, seed: int) -> None:
    out = change(images, generator(seed))
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()
    assert out.min() >= -1 - 1e-5
    assert out.max() <= 1 + 1e-5


@TABLE
def test_the_generator_alone_decides(change: Change, images: torch.Tensor) -> None:
    before = images.clone()
    torch.manual_seed(1)
    first = change(images, generator(4))
    torch.manual_seed(2)
    assert torch.equal(first, change(images, generator(4)))
    assert not torch.equal(first, change(images, generator(5)))
    assert torch.equal(images, before), "the input is not changed"


@pytest.mark.parametrize(
    "change", [partial(move, **STILL, mirror=False), partial(recolour, strength=0.0)], ids=["move", "recolour"]
)
def test_zero_strength_is_the_identity(change: Change, images: torch.Tensor) -> None:
    torch.testing.assert_close(change(images, generator()), images, atol=1e-4, rtol=0)


def test_a_mirror_flips_about_half_and_nothing_else(images: torch.Tensor) -> None:
    out = move(images, generator(1), **STILL, mirror=True)
    flipped = [torch.allclose(o, i.flip(-1), atol=1e-4) for o, i in zip(out, images, strict=True)]
    same = [torch.allclose(o, i, atol=1e-4) for o, i in zip(out, images, strict=True)]
    assert all(a or b for a, b in zip(flipped, same, strict=True))
    assert 0.2 < sum(flipped) / len(images) < 0.8


def test_what_moves_in_from_outside_is_white() -> None:
    black = -torch.ones(4, 3, 16, 16)
    out = move(black, generator(), degrees=0, scale=(0.5, 0.5), shift=0, mirror=False)
    assert out[:, :, 0, 0].eq(1).all()
    assert out[:, :, 8, 8].eq(-1).all()


@pytest.mark.parametrize("batch", [1, 2])
@TABLE
def test_small_batches(change: Change, batch: int, images: torch.Tensor) -> None:
    assert change(images[:batch], generator()).shape == (batch, 3, 64, 64)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-2.0, 3.0), (1.0, 1.0)])
def test_uniform_draws(low: float, high: float) -> None:
    draws = uniform(10_000, low, high, generator())
    assert low <= draws.min() <= draws.max() <= high
    assert float(draws.mean()) == pytest.approx((low + high) / 2, abs=0.1)
