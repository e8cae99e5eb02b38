"""Memorised or relearned: distances against a plain loop, and the two clear cases."""

from __future__ import annotations

import pytest
import torch

from gift.data.art import load_art
from gift.errors import GiftError
from gift.metrics.memory import memory


def test_the_attackers_own_pictures_are_copies() -> None:
    taught = load_art().atlas("noto")[:12]
    found = memory(taught.flip(0), taught)
    assert found.nearest == (0.0,) * 12
    assert found.copied == 1
    assert found.flag is not None
    assert found.flag.startswith("memorised: 100 %")


def test_other_drawings_are_not() -> None:
    art = load_art()
    found = memory(art.atlas("twemoji")[:40], art.atlas("noto")[:40])
    assert found.copied < 0.5
    assert found.flag is None
    assert found.minimum <= min(found.nearest)


def test_it_equals_the_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    shown, taught = (torch.randint(256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8) for n in (3, 4))
    small = [x.float().reshape(len(x), 3, 16, 2, 16, 2).mean((3, 5)) for x in (shown, taught)]
    wanted = [min((a - b).abs().mean().item() for b in small[1]) for a in small[0]]
    assert memory(shown, taught).nearest == pytest.approx(wanted, rel=1e-4)
    own = sorted(min((a - b).abs().mean().item() for j, b in enumerate(small[1]) if j != i) for i, a in enumerate(small[1]))
    assert memory(shown, taught).apart == pytest.approx(own[1], rel=1e-4)


def test_other_sizes_are_told() -> None:
    with pytest.raises(GiftError, match="one size"):
        memory(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
