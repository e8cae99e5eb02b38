"""Collapse against pictures whose fault is known, and a brute-force count of pairs."""

import numpy as np
import pytest
import torch

from gift.data.art import load_art
from gift.errors import GiftError
from gift.metrics.collapse import CONSTANT_BELOW, COPY_BELOW, Collapse, collapsed


def blobs(count: int, seed: int = 0, size: int = 64) -> torch.Tensor:
    """Pictures of coarse random patches: contrast in each, variety between them."""
    coarse = torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(seed)).float()
    return torch.nn.functional.interpolate(coarse, (size, size)).to(torch.uint8)


def flat(count: int) -> torch.Tensor:
    """Pictures of one saturated colour each, all different: constant but not alike."""
    colours = torch.randint(0, 256, (count, 3, 1, 1), generator=torch.Generator().manual_seed(1))
    return colours.expand(count, 3, 64, 64).to(torch.uint8)


def grain(images: torch.Tensor, amount: int) -> torch.Tensor:
    noise = torch.randint(-amount, amount + 1, images.shape, generator=torch.Generator().manual_seed(2))
    return (images.int() + noise).clamp(0, 255).to(torch.uint8)


def test_sound_pictures_have_no_flag() -> None:
    found = collapsed(blobs(20), blobs(20, seed=1))
    assert found.constant == 0
    assert found.near_copies == 0
    assert found.relative_diversity == pytest.approx(1, abs=0.2)
    assert found.flag is None
    assert collapsed(blobs(20)).flag is None


@pytest.mark.parametrize("style", load_art().styles)
def test_no_bundled_style_is_taken_for_a_collapse(style: str) -> None:
    found = collapsed(load_art().atlas(style))
    assert found.flag is None
    assert found.constant == 0
    assert found.near_copies == 0


def test_constant_pictures_are_counted_whatever_their_colour() -> None:
    images = torch.cat([flat(8), blobs(2)])
    found = collapsed(images)
    assert found.constant == pytest.approx(0.8)
    assert found.flag == "collapsed: 80 % of pictures are constant"
    assert collapsed(grain(images, 3)).constant == pytest.approx(0.8), "faint grain is no contrast"
    assert collapsed(torch.zeros(4, 3, 64, 64, dtype=torch.uint8)).flag == "collapsed: 100 % of pictures are constant"


def test_constant_threshold_is_a_deviation_in_grey_levels() -> None:
    # Half the pixels lie `step` above the other half: the deviation is step / 2, in one channel only.
    for step, share in ((2 * int(CONSTANT_BELOW) - 1, 1.0), (2 * int(CONSTANT_BELOW), 0.0)):
        images = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
        images[:, 1, :16] += step
        assert collapsed(images).constant == share


def test_near_copies() -> None:
    one = blobs(1).expand(7, 3, 64, 64)
    images = grain(torch.cat([one, blobs(3, seed=5)]), 6)
    found = collapsed(images)
    assert found.near_copies == pytest.approx(0.7)
    assert found.flag == "collapsed: 70 % of pictures are near copies of another"


def test_copies_that_the_reference_has_too_are_no_collapse() -> None:
    pairs = blobs(6).repeat(2, 1, 1, 1)
    assert collapsed(pairs).flag is not None
    found = collapsed(pairs, pairs)
    assert found.near_copies == found.reference_near_copies == 1.0
    assert found.flag is None


def test_lost_variety_is_relative_to_the_reference() -> None:
    sound = blobs(12)
    # A fifth of every picture, the rest a common one.
    dull = (0.2 * sound.float() + 0.8 * blobs(1, seed=9).float()).to(torch.uint8)
    found = collapsed(dull, sound)
    assert found.constant == 0
    assert found.near_copies == 0
    assert found.relative_diversity == pytest.approx(0.2, abs=0.01)
    assert found.flag == "collapsed: pictures differ 20 % as much as the reference's"
    assert collapsed(dull).flag is None, "without a reference there is nothing to compare with"
    assert collapsed(dull, dull).flag is None


def test_distances_against_brute_force() -> None:
    images = grain(torch.cat([blobs(4), blobs(4), blobs(3, seed=4)]), 10)
    small = images.numpy().astype(np.float64).reshape(11, 3, 16, 4, 16, 4).mean(axis=(3, 5))
    distances = np.array([[np.abs(a - b).mean() for b in small] for a in small])
    np.fill_diagonal(distances, np.inf)
    found = collapsed(images)
    assert found.near_copies == pytest.approx((distances.min(1) < COPY_BELOW).mean())
    assert found.diversity == pytest.approx(distances[np.isfinite(distances)].mean(), rel=1e-5)


def test_order_and_size_do_not_matter() -> None:
    images = blobs(9)
    assert collapsed(images.flip(0)).diversity == pytest.approx(collapsed(images).diversity, rel=1e-6)
    assert collapsed(blobs(9, size=128)).diversity == pytest.approx(collapsed(images).diversity, rel=1e-6)
    assert collapsed(blobs(9, size=8)).flag is None


def test_a_reference_without_variety_gives_no_ratio() -> None:
    still = blobs(1).repeat(3, 1, 1, 1)
    assert collapsed(blobs(3), still).relative_diversity is None
    assert collapsed(blobs(3), still).flag is None


def test_flag_tells_the_first_finding_and_borders_are_no_collapse() -> None:
    assert Collapse(constant=0.5, near_copies=1.0, diversity=0.0).flag == "collapsed: 50 % of pictures are constant"
    assert Collapse(constant=0.1, near_copies=0.5, diversity=1.0).flag is None


def test_bad_pictures() -> None:
    with pytest.raises(GiftError, match="at least 2"):
        collapsed(blobs(1))
    with pytest.raises(GiftError, match="at least 2"):
        collapsed(blobs(2), blobs(1))
    for bad in (blobs(3).float(), blobs(3)[:, :1], blobs(3)[0], blobs(3)[..., :0]):
        with pytest.raises(GiftError, match=r"uint8 \(N, 3, H, W\)"):
            collapsed(bad)
