"""CMMD against a plain double loop, and against what must hold of any distance."""

from __future__ import annotations

import math

import pytest
import torch

from gift.errors import GiftError, NonFiniteError
from gift.metrics.cmmd import cmmd


def rows(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


def looped(x: torch.Tensor, y: torch.Tensor, sigma: float) -> float:
    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        values = [
            math.exp(-sum((p - q) ** 2 for p, q in zip(u, v, strict=True)) / (2 * sigma**2)) for u in a.tolist() for v in b.tolist()
        ]
        return sum(values) / len(values)

    return 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))


@pytest.mark.parametrize("sigma", [10.0, 0.7])
@pytest.mark.parametrize(("n", "m"), [(7, 7), (5, 9), (1, 3)])
def test_it_equals_the_loop(n: int, m: int, sigma: float) -> None:
    x, y = rows(n, 6, 1), rows(m, 6, 2)
    assert cmmd(x, y, sigma=sigma) == pytest.approx(looped(x, y, sigma), abs=1e-8)


def test_equal_sets_are_at_no_distance_and_it_is_symmetric() -> None:
    x, y = rows(40, 8, 1), rows(30, 8, 2)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-9)
    assert cmmd(x, y) == pytest.approx(cmmd(y, x), abs=1e-9)


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(40, 8, 1), rows(30, 8, 2)
    whole = cmmd(x, y)
    monkeypatch.setattr("gift.metrics.cmmd.ROWS", 7)
    assert cmmd(x, y) == pytest.approx(whole, abs=1e-9)


def test_it_grows_with_the_shift() -> None:
    x = rows(200, 8, 1)
    far = [cmmd(x, torch.nn.functional.normalize(rows(200, 8, 2) + shift, dim=-1)) for shift in (0.0, 0.5, 2.0)]
    assert far[0] < far[1] < far[2]


def test_bad_input_is_told() -> None:
    with pytest.raises(GiftError, match=r"\(3, 4\) and \(3, 5\)"):
        cmmd(torch.ones(3, 4), torch.ones(3, 5))
    with pytest.raises(GiftError):
        cmmd(torch.ones(0, 4), torch.ones(3, 4))
    with pytest.raises(NonFiniteError):
        cmmd(torch.full((2, 4), float("nan")), torch.ones(3, 4))
