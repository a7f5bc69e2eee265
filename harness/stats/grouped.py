"""Means over prompts that come in groups: intervals and tests for few groups and for skewed values.

Prompts of a group share something, so groups are the unit. The standard error is the cluster-robust one of a mean with
the small-sample correction CR2, its degrees of freedom are Satterthwaite's; with groups of one size this is the t test
on group means. Shares of repeated text are skewed: most prompts have nearly none, a few have much. A t interval then
misses too often on the side of the tail that few groups show, and Hall's correction of the skewness, which mends
that, is too short on the other side where the values are symmetric with heavy tails. So the end that Hall's correction
moves outwards is moved by all of it, and the other end inwards by a third of it. The interval
and the p-values of its tests belong together: a value is outside of the 95 % interval exactly where its p is below .05.

Measured by simulation (`tests/benchmarks/test_inference.py`, table in results/inference.md). With 12 prompts in 6
groups a zero-heavy law often shows no more than a handful of groups that are not 0: where fewer than 5 groups differ
from the middle one there is no interval, for the reason that is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.core.records import Interval
from harness.stats.intervals import FEWEST_UNITS, Floats, check_level, check_same_length, checked_values, too_few
from harness.stats.joint import Spread

INWARDS = 1 / 3  # of Hall's correction, at the end that it moves inwards
_TINY = 1e-12
Numbers = TypeVar("Numbers", float, Floats)


@dataclass(frozen=True)
class Moments:
    """What intervals of grouped means are made of; arrays [...] of many means with the same groups.

    Attributes:
        value: the mean over all prompts.
        error: its standard error.
        freedom: Satterthwaite's degrees of freedom.
        skewness: of the mean, not of one group: it falls with the root of the number of groups.
        apart: how many groups differ from the middle one.
    """

    value: Floats
    error: Floats
    freedom: float
    skewness: Floats
    apart: NDArray[np.int64]


def group_sums(values: ArrayLike, groups: ArrayLike) -> tuple[Floats, Floats]:
    """Sums and sizes of groups.

    Args:
        values: [n] finite.
        groups: [n] names of any kind.

    Returns:
        float64 [G] sums, float64 [G] sizes, in the order of the sorted names.

    Raises:
        ValueError: a NaN or an infinity (its index is named), or other numbers of values and groups.
    """
    x, names = checked_values(values, "values", finite=True), np.asarray(groups)
    if names.shape != x.shape:
        raise ValueError(f"{x.size} values, but groups of shape {names.shape}")
    _, place = np.unique(names, return_inverse=True)
    sums: Floats = np.bincount(place, weights=x).astype(np.float64)
    return sums, np.bincount(place).astype(np.float64)


def moments(sums: Floats, sizes: Floats) -> Moments:
    """Mean, standard error, degrees of freedom and skewness from the sums of groups.

    Args:
        sums: [..., G] sums over the groups.
        sizes: [G] numbers of prompts, at least 1; G >= 3.

    Returns:
        Their moments. Groups of one prompt each give the ordinary standard error and n - 1 degrees of freedom.

    Source:
        Bell and McCaffrey, "Bias Reduction in Standard Errors for Linear Regression with Multi-Stage Samples", 2002;
        Pustejovsky and Tipton, 2018 (CR2 and its degrees of freedom, here in closed form for a mean).
    """
    n, count = float(sizes.sum()), sizes.size
    value = sums.sum(axis=-1) / n
    rest = sums - sizes * value[..., None]
    raised = 1 / (1 - sizes / n)
    squares = (rest**2).sum(axis=-1)
    error = np.sqrt((raised * rest**2).sum(axis=-1)) / n
    own, across = raised * (sizes - sizes**2 / n), raised * sizes**2 / n
    freedom = float(own.sum() ** 2 / ((own**2).sum() + across.sum() ** 2 - (across**2).sum()))
    scale = np.abs(sums).max(axis=-1)
    flat = error * n <= _TINY * scale * np.sqrt(count)
    cubes = (rest**3).sum(axis=-1) / np.where(flat, 1.0, squares) ** 1.5
    means = sums / sizes
    apart = (np.abs(means - np.median(means, axis=-1)[..., None]) > _TINY * scale[..., None]).sum(axis=-1)
    return Moments(value, np.where(flat, 0.0, error), freedom, np.where(flat, 0.0, cubes * _unbiased(count)), apart)


def _unbiased(count: int) -> float:
    """Fisher's G1 over a plain skewness."""
    return math.sqrt(count * (count - 1)) / (count - 2)


class MomentsAlong:
    """Mean, standard error and skewness of first - x second at any x, from sums over groups that are made once.

    Args:
        first, second: [G] sums over the groups.
        sizes: as of `moments`.
    """

    def __init__(self, first: Floats, second: Floats, sizes: Floats) -> None:
        self._first, self._second, self._n = first, second, float(sizes.sum())
        self._means = float(first.sum()) / self._n, float(second.sum()) / self._n
        a, b = first - sizes * self._means[0], second - sizes * self._means[1]
        raised = 1 / (1 - sizes / self._n)
        self._raised = [float((raised * one).sum()) for one in (a * a, -2 * a * b, b * b)]
        self._squares = [float(one.sum()) for one in (a * a, -2 * a * b, b * b)]
        self._cubes = [float(one.sum()) for one in (a**3, -3 * a * a * b, 3 * a * b * b, -(b**3))]
        self.freedom = moments(first, sizes).freedom

    def at(self, x: float) -> tuple[float, float, float]:
        """Value, error and skewness, those of `moments(first - x * second, sizes)`."""
        count = self._first.size
        value = self._means[0] - x * self._means[1]
        error = math.sqrt(max(_power_sum(self._raised, x), 0.0)) / self._n
        scale = float(np.abs(self._first - x * self._second).max())
        squares = _power_sum(self._squares, x)
        if error * self._n <= _TINY * scale * math.sqrt(count) or squares <= 0:
            return value, 0.0, 0.0
        return value, error, _unbiased(count) * _power_sum(self._cubes, x) / squares**1.5

    def tail(self, x: float, side: int) -> float:
        """One of the p-values that `tails` gives against 0: of "not above" (side 1), of "not below" (side -1)."""
        from scipy.special import stdtr

        value, error, skewness = self.at(x)
        if error == 0:
            return 0.0 if side * value > 0 else 1.0
        t = value / error
        return float(stdtr(self.freedom, -_towards_zero_of_one(side * t, side * skewness)))


def _power_sum(coefficients: Sequence[float], x: float) -> float:
    """The polynomial with these coefficients, the constant one first."""
    found = 0.0
    for one in reversed(coefficients):
        found = found * x + one
    return found


def _hall(t: Numbers, skewness: Numbers) -> Numbers:
    """What Hall's transformation adds to a studentised mean; with it the sum is monotone in t."""
    return skewness * (t**2 / 3 + 1 / 6) + skewness**2 * t**3 / 27


def _towards_zero(t: Floats, skewness: Floats) -> Floats:
    """The smaller of Hall's statistic and the one with a third of his correction: what a right tail is judged by."""
    added = _hall(t, skewness)
    return t + np.minimum(added, INWARDS * added)


def _towards_zero_of_one(t: float, skewness: float) -> float:
    """`_towards_zero` of two numbers: root finders ask for one at a time."""
    added = _hall(t, skewness)
    return t + min(added, INWARDS * added)


def tails(found: Moments, bound: float | Floats, stretch: float = 1.0) -> tuple[Floats, Floats]:
    """One-sided p-values of the mean against a bound.

    Args:
        found: [...] moments; error above 0.
        bound: what the mean is compared with.
        stretch: by how much standard errors are enlarged.

    Returns:
        [...] p-value of "the mean is not below the bound" (small where it is clearly below) and of "it is not above".

    Source:
        Hall, "On the Removal of Skewness by Transformation", Journal of the Royal Statistical Society B 54, 1992.
    """
    from scipy.special import stdtr

    t = (found.value - bound) / (found.error * stretch)
    below, above = (stdtr(found.freedom, -_towards_zero(turn * t, turn * found.skewness)) for turn in (-1, 1))
    return np.asarray(below, dtype=np.float64), np.asarray(above, dtype=np.float64)


@dataclass(frozen=True)
class GroupMean:
    """A mean over prompts in groups, ready to be tested.

    Attributes:
        value: the mean; None where there is no prompt.
        n, groups: how many prompts, in how many groups.
        found: its moments; None where no honest interval exists.
        missing: why.
    """

    value: float | None
    n: int
    groups: int
    found: Moments | None
    missing: str | None = None

    def interval(self, level: float = 0.95, stretch: float = 1.0) -> Interval:
        """The mean with its interval of the level; `n` counts groups.

        Args:
            level: nominal coverage.
            stretch: by how much standard errors are enlarged.
        """
        check_level(level)
        if self.found is None or self.value is None:
            return Interval(self.value, None, None, self.groups, self.missing)
        from scipy.special import stdtrit

        edge = -float(stdtrit(self.found.freedom, (1 - level) / 2))
        error, skewness = float(self.found.error) * stretch, float(self.found.skewness)
        low, high = (_inverse(edge, turn * skewness) for turn in (1, -1))
        return Interval(self.value, self.value - low * error, self.value + high * error, self.groups)

    def p(self, null: float = 0.0) -> float | None:
        """Two-sided p-value of a mean of `null`; None where there is no interval."""
        if self.found is None:
            return None
        return min(1.0, 2 * min(float(side) for side in tails(self.found, null)))

    def spread(self) -> Spread | None:
        """Standard error and degrees of freedom, for the smallest difference that could have been found."""
        if self.found is None:
            return None
        return Spread(float(self.found.error), self.found.freedom, float(self.found.skewness))


def group_mean(values: ArrayLike, groups: ArrayLike | None = None) -> GroupMean:
    """The mean of one number per prompt, with what its interval is made of.

    Args:
        values: [n] finite, one number per prompt (or per observation, with its prompt as the group).
        groups: [n] what prompts share; None where they share nothing.

    Returns:
        The mean; without an interval below 5 groups, where fewer than 5 differ from the middle one, or where one group
        holds half of the prompts.

    Raises:
        ValueError: as `group_sums`.
    """
    x = checked_values(values, "values", finite=True)
    sums, sizes = group_sums(x, np.arange(x.size) if groups is None else groups)
    return mean_of_sums(sums, sizes)


def mean_of_sums(sums: ArrayLike, sizes: ArrayLike) -> GroupMean:
    """As `group_mean`, from the sums and sizes of the groups, [G] each.

    Raises:
        ValueError: a NaN or an infinity, other numbers of sums and sizes, or a size below 1.
    """
    above, below = checked_values(sums, "sums", finite=True), checked_values(sizes, "sizes", finite=True)
    check_same_length(sums=above, sizes=below)
    n, count = int(below.sum()), above.size
    if count == 0:
        return GroupMean(None, 0, 0, None, "no prompts")
    if (below < 1).any():
        raise ValueError("every group has at least one prompt")
    value = float(above.sum() / n)
    if count < FEWEST_UNITS:
        return GroupMean(value, n, count, None, too_few(count))
    if below.max() > n / 2:
        return GroupMean(value, n, count, None, "one group holds more than half of the prompts")
    found = moments(above, below)
    if int(found.apart) < FEWEST_UNITS:
        said = f"only {int(found.apart)} of {count} groups differ from the middle one: too few for an interval"
        return GroupMean(value, n, count, None, said)
    return GroupMean(value, n, count, found)


def _inverse(edge: float, skewness: float) -> float:
    """The studentised distance at which `_towards_zero` reaches an edge of the t distribution."""
    from scipy.optimize import brentq

    def beyond(t: float) -> float:
        return _towards_zero_of_one(t, skewness) - edge

    low, high = -1.0, 2 * edge + 1.0
    while beyond(low) > 0:
        low *= 2
    while beyond(high) < 0:
        high *= 2
    return float(brentq(beyond, low, high, xtol=1e-12))
