"""Recovered share: how much of the distance between a floor and a ceiling is covered, with an interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.core.records import Interval
from harness.stats.intervals import (
    FEWEST_UNITS,
    Floats,
    bca,
    check_level,
    check_same_length,
    checked_values,
    resampled,
    too_few,
)


def recovered_interval(gains: ArrayLike, rooms: ArrayLike, seed: int, level: float = 0.95) -> Interval:
    """Recovered share, mean gain / mean room, resampled by unit.

    Single units may have no room, or less than none; only the mean room must be positive. Resamples in which it is not
    have no ratio and are left out.

    Args:
        gains: [n] error of the floor minus error of the thing, one number per unit.
        rooms: [n] error of the floor minus error of the ceiling, of the same units.
        seed: of the resampling.
        level: nominal coverage.

    Returns:
        1 where the ceiling is reached, 0 at the floor; undefined where the mean room is not positive.

    Raises:
        ValueError: a NaN or an infinity, lengths that differ, or a level outside (0, 1).

    Source: Efron, "Better Bootstrap Confidence Intervals", 1987 (BCa).
    """
    a, b = checked_values(gains, "gains", finite=True), checked_values(rooms, "rooms", finite=True)
    check_same_length(gains=a, rooms=b)
    check_level(level)
    n = a.size
    if n == 0:
        return Interval(None, None, None, 0, "no units")

    def statistic(rows: NDArray[np.int64]) -> Floats:
        """[draws]; NaN where the mean room is not positive."""
        bottom = b[rows].mean(axis=-1)
        ratio: Floats = np.full(bottom.shape, np.nan)
        np.divide(a[rows].mean(axis=-1), bottom, out=ratio, where=bottom > 0)
        return ratio

    value = float(statistic(np.arange(n)[None])[0])
    if np.isnan(value):
        return Interval(None, None, None, n, "there is no room between floor and ceiling")
    if n < FEWEST_UNITS:
        return Interval(value, None, None, n, too_few(n))
    replicates = resampled(n, seed, statistic)
    kept = ~np.eye(n, dtype=np.bool_)
    jackknife = statistic(np.broadcast_to(np.arange(n), (n, n))[kept].reshape(n, n - 1))
    replicates, jackknife = replicates[~np.isnan(replicates)], jackknife[~np.isnan(jackknife)]
    if np.ptp(replicates) <= 1e-12:
        return Interval(value, None, None, n, "resampling has no spread")
    return bca(value, replicates, jackknife, n, (1 - level) / 2)
