"""Rank correlation over units, with intervals of the same bootstrap as `statistics`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.core.records import Interval
from harness.stats.intervals import (
    Floats,
    bootstrap_interval,
    check_level,
    check_same_length,
    checked_values,
)


def spearman_interval(a: ArrayLike, b: ArrayLike, seed: int, level: float = 0.95) -> Interval:
    """Spearman's rank correlation over units, ties by average ranks.

    The interval is BCa without widening: ranks are bounded, and with 12 normal pairs the plain one already covers .94
    to .98. A perfect correlation has none, since every resample repeats it.

    Args:
        a: [n] one number per unit; infinities are fine.
        b: [n] of the same units in the same order.
        seed: of the resampling.
        level: nominal coverage.

    Returns:
        The correlation; undefined below 4 units and where a or b is constant.

    Raises:
        ValueError: a NaN (its index is named), lengths that differ, or a level outside (0, 1).
    """
    x, y = checked_values(a, "a"), checked_values(b, "b")
    check_same_length(a=x, b=y)
    check_level(level)
    n = x.size
    if n < 4:
        return Interval(None, None, None, n, "fewer than 4 units")
    for name, array in (("first", x), ("second", y)):
        if (array == array[0]).all():
            return Interval(None, None, None, n, f"the {name} variable is constant")
    first, second = _order(x), _order(y)
    value = float(_correlations(_ranks(first[None]), _ranks(second[None]))[0])
    if abs(value) > 1 - 1e-12:
        return Interval(float(np.sign(value)), None, None, n, "a perfect rank correlation has no bootstrap spread")
    return bootstrap_interval(lambda rows: _correlations(_ranks(first[rows]), _ranks(second[rows])), n, seed, level)


def mean_spearman_interval(a: ArrayLike, b: ArrayLike, seed: int, level: float = 0.95) -> Interval:
    """Spearman's rank correlation of one variable with each of several, averaged over the several.

    For a real continuation and those of a surrogate with several seeds: every seed is correlated on its own, since a
    mean over seeds is smoother than any single continuation. A seed that is constant ranks nothing: it counts as 0.

    Args:
        a: [n] one number per unit.
        b: [s, n] of the same units in the same order; NaN where undefined. Such a unit is left out of all seeds.
        seed: of the resampling, which is by unit.
        level: nominal coverage.

    Returns:
        The mean correlation, with an interval as `spearman_interval`; undefined where a or all of b is constant.

    Raises:
        ValueError: a NaN in a (its index is named), shapes that do not match, or a level outside (0, 1).
    """
    x, others = checked_values(a, "a"), np.asarray(b, dtype=np.float64)
    if others.ndim != 2 or others.shape[0] == 0 or others.shape[1] != x.size:
        raise ValueError(f"b must have shape [s, {x.size}] with s at least 1, got {others.shape}")
    check_level(level)
    defined = ~np.isnan(others).any(axis=0)
    x, others = x[defined], others[:, defined]
    if len(others) == 1:
        return spearman_interval(x, others[0], seed, level)
    n = x.size
    if n < 4:
        return Interval(None, None, None, n, "fewer than 4 units")
    if (x == x[0]).all():
        return Interval(None, None, None, n, "the first variable is constant")
    if (others == others[:, :1]).all():
        return Interval(None, None, None, n, "the second variable is constant for every seed")
    of_first, of_others = _order(x), [_order(y) for y in others]

    def statistic(rows: NDArray[np.int64]) -> Floats:
        """[draws] mean over seeds; NaN where a draw leaves the first variable constant."""
        first = _ranks(of_first[rows])
        found = np.stack([_correlations(first, _ranks(second[rows])) for second in of_others])
        means: Floats = np.where(np.ptp(first, axis=1) > 0, np.nan_to_num(found).mean(axis=0), np.nan)
        return means

    return bootstrap_interval(statistic, n, seed, level)


def _order(values: Floats) -> NDArray[np.int64]:
    """[n] -> the place of each value among the different ones, from 0."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _ranks(places: NDArray[np.int64]) -> Floats:
    """Average ranks within each row of places [draws, n], by counting: no row is sorted."""
    draws, width = len(places), int(places.max()) + 1
    cells = places + width * np.arange(draws)[:, None]
    counts = np.bincount(cells.ravel(), minlength=draws * width).reshape(draws, width)
    ranks = np.cumsum(counts, axis=1) - 0.5 * (counts - 1)
    found: Floats = ranks.ravel()[cells]
    return found


def _correlations(a: Floats, b: Floats) -> Floats:
    """Pearson correlation of each pair of rows; NaN where one is constant."""
    x, y = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norm = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    correlations: Floats = np.full(norm.shape, np.nan)
    np.divide((x * y).sum(axis=1), norm, out=correlations, where=norm > 0)
    return correlations
