"""Recovered share: how much of the distance between a floor and a ceiling is covered, with an interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from harness.core.records import Interval
from harness.stats.intervals import (
    Floats,
    check_level,
    check_same_length,
    checked_values,
    interval_of_sums,
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

    def statistic(sums: Floats) -> Floats:
        """[draws]; NaN where there is no room."""
        ratio: Floats = np.full(len(sums), np.nan)
        np.divide(sums[:, 0], sums[:, 1], out=ratio, where=sums[:, 1] > 0)
        return ratio

    if b.mean() <= 0:
        return Interval(None, None, None, n, "there is no room between floor and ceiling")
    return interval_of_sums(statistic, np.stack([a, b], axis=1), seed, level)
