"""Rank correlation over units, with intervals of the same bootstrap as `statistics`."""

from __future__ import annotations

from functools import partial

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

_CHUNK = 100_000
"""Numbers that are held at once: few enough to stay in the processor's cache."""


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
    statistic = partial(_mean_correlation, x, y[None])
    value = float(statistic(np.arange(n)[None])[0])
    if abs(value) > 1 - 1e-12:
        return Interval(float(np.sign(value)), None, None, n, "a perfect rank correlation has no bootstrap spread")
    return bootstrap_interval(statistic, n, seed, level)


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
    return bootstrap_interval(partial(_mean_correlation, x, others), n, seed, level)


def _mean_correlation(x: Floats, others: Floats, rows: NDArray[np.int64]) -> Floats:
    """Rank correlation of x [n] with each of several [s, n] on rows of indices [draws, m], their mean: [draws].

    An undefined correlation counts as 0; the mean is NaN where x, or the only one of the others, is constant. Ranks are
    counted: nothing is sorted in a draw. They are halves of integers, so that no sum is rounded in any order.
    """
    n, step = x.size, max(1, _CHUNK // x.size)
    means = [np.zeros(0)]
    for first in range(0, len(rows), step):
        part = rows[first : first + step]
        cells = (part + n * np.arange(len(part))[:, None]).ravel()
        times = np.bincount(cells, minlength=n * len(part)).reshape(-1, n).T.astype(np.float64, order="C")
        own = _centred_ranks(times, x)
        weighted = times * own
        spread = (weighted * own).sum(axis=0)
        found = np.zeros((len(others), len(part)))
        for place, other in enumerate(others):
            ranks = _centred_ranks(times, other)
            norm = np.sqrt(spread * (times * ranks * ranks).sum(axis=0))
            undefined = 0.0 if len(others) > 1 else np.nan
            found[place] = np.divide(
                (weighted * ranks).sum(axis=0), norm, out=np.full(norm.shape, undefined), where=norm > 0
            )
        means.append(np.where(spread > 0, found.mean(axis=0), np.nan))
    return np.concatenate(means)


def _centred_ranks(times: Floats, values: Floats) -> Floats:
    """Average rank of every unit in every draw, less the mean rank.

    Args:
        times: [n, draws] how often each unit is in each draw.
        values: [n] of the units; equal ones share a rank.
    """
    _, starts, places = np.unique(np.sort(values), return_index=True, return_inverse=True)
    order = np.argsort(values, kind="stable")
    back = np.empty_like(places)
    back[order] = places
    counts = np.add.reduceat(times[order], starts, axis=0)
    ranks: Floats = np.cumsum(counts, axis=0) - 0.5 * counts - 0.5 * times.sum(axis=0)
    return ranks[back]
