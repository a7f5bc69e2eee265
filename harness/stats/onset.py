"""Where a mean that falls along an axis first falls to a share of its start: repetition with temperature, above all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from harness.core.records import Interval
from harness.stats.intervals import Floats, interval_of_sums


def crossings(places: Floats, means: Floats, share: float = 0.5) -> Floats:
    """Where means first fall to a share of their first value, interpolated linearly.

    Args:
        places: [m] along the axis, ascending.
        means: [..., m] at these places.
        share: of the first mean.

    Returns:
        [...]; NaN where the first mean is not positive or the others stay above.
    """
    level = share * means[..., :1]
    below = (means <= level) & (level > 0)
    below[..., 0] = False
    there = below.any(-1)
    at = np.where(there, below.argmax(-1), 1)
    high, low = (np.take_along_axis(means, (at - k)[..., None], -1)[..., 0] for k in (1, 0))
    gap = np.where(there, high - low, 1.0)
    part = np.where(gap > 0, (high - level[..., 0]) / np.where(gap > 0, gap, 1.0), 0.0)
    found: Floats = np.where(there, places[at - 1] + part * (places[at] - places[at - 1]), np.nan)
    return found


def onset_interval(
    places: Sequence[float], values: ArrayLike, groups: ArrayLike | None, seed: int, minus: ArrayLike | None = None
) -> Interval:
    """Where the mean of values first falls to half of its first one, with an interval over groups of units.

    In draws in which it stays above, the last place stands for "later": an interval that ends there is open.

    Args:
        places: [m] along the axis, ascending.
        values: [n, m], one row per unit.
        groups: [n] what units share; they are drawn together. None: every unit by itself.
        seed: of the resampling.
        minus: [n, m] of another source and the same units: the difference of both onsets is given, draw by draw.

    Raises:
        ValueError: places that do not ascend, or arrays that do not fit.
    """
    at, own = np.asarray(places, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if own.ndim != 2 or own.shape[1] != len(at) or (np.diff(at) <= 0).any():
        raise ValueError(f"values must be [units, {len(at)} places], and places ascend; got {own.shape} and {places}")
    both = [own] if minus is None else [own, np.asarray(minus, dtype=np.float64)]
    if any(one.shape != own.shape for one in both):
        raise ValueError(f"minus must be {own.shape}, as values are")
    _, of = np.unique(np.arange(len(own)) if groups is None else np.asarray(groups), return_inverse=True)
    number = int(of.max()) + 1 if len(of) else 0
    if number == 0:
        return Interval(None, None, None, 0, "no units")
    sums = np.zeros((len(both), number, len(at)))
    for place, one in enumerate(both):
        np.add.at(sums[place], of, one)
    sizes = np.bincount(of, minlength=number).astype(np.float64)
    if any(np.isnan(crossings(at, one.sum(0) / sizes.sum())) for one in sums):
        return Interval(None, None, None, number, f"does not fall to half by {at[-1]:g}")

    def statistic(drawn: Floats) -> Floats:
        """Sums of every source at each place, then the number of units."""
        means = drawn[:, :-1].reshape(len(drawn), len(sums), len(at)) / drawn[:, -1:, None]
        found = [crossings(at, means[:, place]) for place in range(len(sums))]
        kept = [np.where(np.isnan(one), at[-1], one) for one in found]
        result: Floats = kept[0] if minus is None else kept[0] - kept[1]
        return result

    return interval_of_sums(statistic, np.column_stack([*sums, sizes]), seed)
