"""Intervals that stand beside a mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gift.errors import GiftError, NonFiniteError

CELLS = 1_000_000
"""Drawn values held in memory at once."""


def bootstrap(values: Sequence[float], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13).

    With few values it is too narrow: of three seeds the whole range is drawn, but the 95 % interval covers the true mean in
    well under 95 % of cases (for normal values about 75 %). It shows spread; it is not a test.

    Args:
        values: the sample, at least two, e.g. one score per seed or per picture; independent of each other.
        confidence: the share of resampled means inside the interval, in (0, 1).
        resamples: how many samples are drawn with replacement.
        seed: the same seed gives the same interval.

    Returns:
        (low, high) in the unit of the values, within their range.

    Raises:
        GiftError: fewer than two values (a single one has no spread to show), or an argument out of range.
        NonFiniteError: a value is NaN or infinite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size < 2:
        raise GiftError(f"an interval needs at least 2 values in one list, got shape {sample.shape}; run more seeds")
    if not np.isfinite(sample).all():
        raise NonFiniteError("a value is NaN or infinite; score it again or report it as collapsed")
    if not 0 < confidence < 1:
        raise GiftError(f"confidence {confidence} is not between 0 and 1; the usual one is 0.95")
    if resamples < 1:
        raise GiftError(f"{resamples} resamples make no interval; the usual number is 2000")
    rng = np.random.default_rng(seed)
    rows = max(1, CELLS // sample.size)
    means = np.concatenate(
        [
            sample[rng.integers(sample.size, size=(min(rows, resamples - start), sample.size))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )
    tail = (1 - confidence) / 2
    # The mean of equal values can leave their range by a rounding error.
    low, high = np.clip(np.quantile(means, [tail, 1 - tail]), sample.min(), sample.max())
    return float(low), float(high)
