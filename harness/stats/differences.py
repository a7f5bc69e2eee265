"""Differences of two pooled figures: paired over common units, or between two independent samples.

A figure is sum(numerators) / sum(denominators) over units; with denominators of 1 it is a mean. Both sides of a pair
are resampled together. Intervals are those of `intervals`: BCa, widened as a t interval; those of many figures that are
judged together are widened once more (`joint`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.core.records import Interval
from harness.stats.intervals import (
    FEWEST_UNITS,
    Floats,
    bca,
    check_level,
    check_same_length,
    checked_values,
    too_few,
)
from harness.stats.joint import paired_spread, together, two_sample_spread
from harness.stats.resampling import RESAMPLES, resampled_sums
from harness.stats.significance import sign_flip_p

_TINY = 1e-12
FEWEST_DRAWS = 5  # beyond an end of an interval, for that end to be read off the resamples


@dataclass(frozen=True)
class Pooled:
    """One figure: its sums per unit.

    Attributes:
        numerators, denominators: [n] finite; denominators are not negative and sum to more than 0.
    """

    numerators: Floats
    denominators: Floats

    def __post_init__(self) -> None:
        a = checked_values(self.numerators, "numerators", finite=True)
        b = checked_values(self.denominators, "denominators", finite=True)
        check_same_length(numerators=a, denominators=b)
        if a.size == 0 or (b < 0).any() or b.sum() <= 0:
            raise ValueError("a pooled figure needs units, and denominators that are not negative and not all 0")

    @property
    def value(self) -> float:
        return float(self.numerators.sum() / self.denominators.sum())

    def by(self, groups: np.ndarray | None) -> Pooled:
        """The same figure with groups of units as its units, in the order of their sorted names.

        Args:
            groups: [n] of each unit; None where they have none.
        """
        if groups is None:
            return self
        _, place = np.unique(groups, return_inverse=True)
        above, below = (np.bincount(place, weights=sums) for sums in (self.numerators, self.denominators))
        return Pooled(above.astype(np.float64), below.astype(np.float64))

    def contributions(self) -> Floats:
        """[n] numbers whose mean is the value: of a mean the units' own, of a ratio its linearisation."""
        value = self.value
        linear: Floats = value + (self.numerators - value * self.denominators) / self.denominators.mean()
        return linear

    def without_each(self) -> Floats:
        """[n] the value without each unit."""
        rest = self.denominators.sum() - self.denominators
        values: Floats = np.full(rest.shape, self.value)
        np.divide(self.numerators.sum() - self.numerators, rest, out=values, where=rest > 0)
        return values

    def drawn(self, seed: int) -> Floats:
        """[RESAMPLES] the value in draws of units; NaN where their denominators sum to 0."""
        above, below = resampled_sums(np.stack([self.numerators, self.denominators], axis=1), seed).T
        values: Floats = above / np.where(below > 0, below, np.nan)
        return values


def paired_pooled_difference(
    a: Pooled, b: Pooled, seed: int, level: float = 0.95, figures: int | None = None
) -> Interval:
    """a - b over units that both were measured on.

    Args:
        a, b: figures of the same units in the same order.
        seed: of the resampling.
        level: nominal coverage, of all figures where several are judged together.
        figures: how many are judged together; None where the interval is one of its own.

    Returns:
        The difference; an interval from 5 units on, unless resampling shows no spread.

    Raises:
        ValueError: other numbers of units, or a level outside (0, 1).

    Source:
        As `statistics.mean_interval`; with denominators of 1 it is `statistics.paired_difference`.
    """
    check_level(level)
    check_same_length(a=a.numerators, b=b.numerators)
    value, n = a.value - b.value, a.numerators.size
    if n < FEWEST_UNITS:
        return Interval(value, None, None, n, too_few(n))
    jackknife = a.without_each() - b.without_each()
    scale = np.abs(a.contributions()).max() + np.abs(b.contributions()).max()
    if np.ptp(a.contributions() - b.contributions()) <= _TINY * max(scale, 1e-300):
        return Interval(value, None, None, n, "all units are equal: resampling has no spread")
    drawn = a.drawn(seed) - b.drawn(seed)
    if np.isnan(drawn).any():
        return Interval(value, None, None, n, "in some resamples the denominators sum to 0")
    alone = together(level, figures)
    found = _interval(value, drawn, jackknife, n, _tail(n - 1, n, alone))
    spread = None if figures is None else paired_spread(a, b)
    return found if spread is None else spread.widened(found, alone)


def two_sample_difference(a: Pooled, b: Pooled, seed: int, level: float = 0.95, figures: int | None = None) -> Interval:
    """a - b where the units of the two have nothing to do with each other.

    Args:
        a, b: figures of two independent samples, of any sizes.
        seed: of the resampling.
        level: nominal coverage, of all figures where several are judged together.
        figures: how many are judged together; None where the interval is one of its own.

    Returns:
        The difference; an interval where both have 5 units and their spread is not nothing. Its n is that of the
        smaller sample.

    Raises:
        ValueError: a level outside (0, 1).

    Source:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 8.3; degrees of freedom by Welch, 1947.
    """
    check_level(level)
    sizes = a.numerators.size, b.numerators.size
    value, n = a.value - b.value, min(sizes)
    if n < FEWEST_UNITS:
        return Interval(value, None, None, n, too_few(n))
    variances = [float(np.var(s.contributions(), ddof=1)) / size for s, size in zip((a, b), sizes, strict=True)]
    if sum(variances) <= (_TINY * (abs(a.value) + abs(b.value))) ** 2:
        return Interval(value, None, None, n, "all units are equal: resampling has no spread")
    one, other = a.drawn(seed), b.drawn(seed + 1)
    drawn = one - np.random.default_rng(seed + 2).permutation(other)
    if np.isnan(drawn).any():
        return Interval(value, None, None, n, "in some resamples the denominators sum to 0")
    freedom = sum(variances) ** 2 / sum(v**2 / (size - 1) for v, size in zip(variances, sizes, strict=True))
    left, right = a.without_each(), -b.without_each()
    jackknife = np.concatenate([left - left.mean(), right - right.mean()])
    alone = together(level, figures)
    found = _interval(value, drawn, jackknife, n, _tail(freedom, freedom + 1, alone))
    spread = None if figures is None else two_sample_spread(a, b)
    return found if spread is None else spread.widened(found, alone)


def _interval(value: float, drawn: Floats, jackknife: Floats, n: int, tail: float) -> Interval:
    """The BCa interval; where fewer resamples than FEWEST_DRAWS are beyond its ends, one that they support, stretched.

    Many figures that are judged together need ends so far out that no resample lies there: the extremes of the
    resamples would decide it, and far too many figures would be called different. The ends are stretched as those
    of a normal distribution.
    """
    from scipy.special import ndtri

    known = max(tail, FEWEST_DRAWS / drawn.size)
    found = bca(value, drawn, jackknife, n, known)
    if known == tail or found.low is None or found.high is None:
        return found
    stretch = float(ndtri(tail) / ndtri(known))
    return Interval(value, value - stretch * (value - found.low), value + stretch * (found.high - value), n)


def _tail(freedom: float, n: float, level: float) -> float:
    """What each end of a bootstrap interval cuts off, so that it is as wide as a t interval of these degrees."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(freedom, (1 - level) / 2)))


def paired_p(a: Pooled, b: Pooled, seed: int) -> float:
    """Two-sided p-value of no difference between two figures of the same units, by random signs."""
    check_same_length(a=a.numerators, b=b.numerators)
    return sign_flip_p(a.contributions() - b.contributions(), seed)


def two_sample_p(a: Pooled, b: Pooled, seed: int) -> float:
    """Two-sided p-value of no difference between two independent samples, by random permutation of their units.

    Args:
        a, b: the figures; of ratios the linearised units are permuted.
        seed: of the permutations, 10,000 and the observed one.

    Returns:
        A p-value, never 0.
    """
    values = np.concatenate([a.contributions(), b.contributions()])
    size = a.numerators.size
    generator = np.random.default_rng(seed)
    total, extreme = values.sum(), 1
    observed = abs(a.value - b.value) - _TINY * float(np.abs(values).max())
    piece = max(1, 2_000_000 // values.size)
    for start in range(0, RESAMPLES, piece):
        keys = generator.random((min(piece, RESAMPLES - start), values.size))
        chosen = values[np.argpartition(keys, size - 1, axis=1)[:, :size]].sum(axis=1)
        difference = chosen / size - (total - chosen) / (values.size - size)
        extreme += int(np.count_nonzero(np.abs(difference) >= observed))
    return extreme / (RESAMPLES + 1)
