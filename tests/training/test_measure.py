"""The meter: wall time and the block's own peak, not an earlier one's."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from gift.training.measure import Meter


def test_time_is_measured() -> None:
    with Meter() as meter:
        time.sleep(0.05)
    assert 0.05 <= meter.seconds < 5


def test_a_peak_is_seen_and_not_handed_on() -> None:
    size = 200
    with Meter(pause=0.001) as small:
        pass
    with Meter(pause=0.001) as large:
        block = np.ones(size << 17)  # `size` MB, touched
        time.sleep(0.05)
        del block
    with Meter(pause=0.001) as after:
        pass
    assert large.peak_mb > small.peak_mb + size / 2
    assert after.peak_mb < large.peak_mb - size / 2


def test_the_watcher_ends_even_after_an_error() -> None:
    before = threading.active_count()
    meter = Meter()
    with pytest.raises(ZeroDivisionError), meter:
        raise ZeroDivisionError
    assert threading.active_count() == before
    assert meter.peak_mb > 0
