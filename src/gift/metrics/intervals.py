"""Intervals that stand beside a mean."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from gift.errors import GiftError, NonFiniteError

Array = npt.NDArray[np.float64]

CELLS = 1_000_000
"""Drawn values held in memory at once."""


def bootstrap(
    values: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13).

    Values that resemble each other within clusters (the seeds of one concept) are no independent draws: drawn one by one, they
    would give too narrow an interval. So whole clusters are drawn, with all of their values (Davison & Hinkley 1997, section 3.8),
    and a resample's mean is over every value in them.

    With few values, or few clusters, it is too narrow: of three seeds the whole range is drawn, but the 95 % interval covers the
    true mean in well under 95 % of cases (for normal values about 75 %). It shows spread; it is not a test.

    Args:
        values: the sample, at least two, e.g. one score per seed or per picture; independent of each other, or of those in other
            clusters.
        clusters: a label for each value. Without two distinct ones, single values are drawn, as without labels.
        confidence: the share of resampled means inside the interval, in (0, 1).
        resamples: how many samples are drawn with replacement.
        seed: the same seed gives the same interval.

    Returns:
        (low, high) in the unit of the values, within their range.

    Raises:
        GiftError: fewer than two values (a single one has no spread to show), another number of labels than of values, or an
            argument out of range.
        NonFiniteError: a value is NaN or infinite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size < 2:
        raise GiftError(f"an interval needs at least 2 values in one list, got shape {sample.shape}; run more seeds")
    if not np.isfinite(sample).all():
        raise NonFiniteError("a value is NaN or infinite; score it again or report it as collapsed")
    if clusters is not None and len(clusters) != sample.size:
        raise GiftError(f"{len(clusters)} cluster labels for {sample.size} values; give each value one")
    if not 0 < confidence < 1:
        raise GiftError(f"confidence {confidence} is not between 0 and 1; the usual one is 0.95")
    if resamples < 1:
        raise GiftError(f"{resamples} resamples make no interval; the usual number is 2000")
    sums, sizes = _units(sample, clusters)
    rng = np.random.default_rng(seed)
    rows = max(1, CELLS // sums.size)
    means = np.concatenate(
        [
            _means(sums, sizes, rng.integers(sums.size, size=(min(rows, resamples - start), sums.size)))
            for start in range(0, resamples, rows)
        ]
    )
    tail = (1 - confidence) / 2
    # The mean of equal values can leave their range by a rounding error.
    low, high = np.clip(np.quantile(means, [tail, 1 - tail]), sample.min(), sample.max())
    return float(low), float(high)


def _units(sample: Array, clusters: Sequence[Hashable] | None) -> tuple[Array, Array]:
    """The sum and the number of values of each unit that is drawn whole: a cluster, or a single value."""
    places = {label: place for place, label in enumerate(dict.fromkeys(clusters or ()))}
    if clusters is None or len(places) < 2:
        return sample, np.ones_like(sample)
    which = [places[label] for label in clusters]
    return np.bincount(which, sample).astype(np.float64), np.bincount(which).astype(np.float64)


def _means(sums: Array, sizes: Array, drawn: npt.NDArray[np.int64]) -> Array:
    """The mean over all values of the drawn units, a row a resample."""
    means: Array = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means
