"""Intervals that hold together cover together: simulated joint coverage of up to 300 independent figures.

`CCMC_SIMULATIONS=10` makes the loops ten times as long.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.core.records import Interval
from harness.stats import resampling
from harness.stats.differences import Pooled, paired_pooled_difference, two_sample_difference
from harness.stats.joint import Spread, paired_spread, together, two_sample_spread

LONGER = int(os.environ.get("CCMC_SIMULATIONS", "1"))
Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]
KINDS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy": lambda rng, shape: rng.standard_t(3, size=shape),
    "skewed": lambda rng, shape: rng.gamma(4.0, size=shape) - 4.0,  # skewness 1
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1.0,  # skewness 2
}


def mean(values: Array) -> Pooled:
    return Pooled(values, np.ones_like(values))


class Units:
    """As much of a pooled mean as its spread needs."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def contributions(self) -> Array:
        return self.values


def t_part(draws: Array, figures: int) -> float:
    """Joint coverage of 0 by the t ends alone, which joint intervals never fall short of."""
    zero, hits, level = Units(np.zeros(draws.shape[1])), 0, together(0.95, figures)
    for values in draws:
        spread, value = paired_spread(Units(values), zero), float(values.mean())
        assert spread is not None
        ends = spread.widened(Interval(value, value, value, values.size), level)
        hits += (ends.low or 0.0) <= 0 <= (ends.high or 0.0)
    return float((hits / len(draws)) ** figures)


# With 5,000 draws the standard error is .003 for 1 figure, .008 for 10 and .03 for 100.
@pytest.mark.parametrize(
    ("kind", "n", "figures", "least"),
    [
        ("normal", 5, 1, 0.95),
        ("normal", 5, 10, 0.94),
        ("normal", 6, 10, 0.94),
        ("normal", 6, 100, 0.9),
        ("heavy", 6, 10, 0.95),
        ("skewed", 6, 10, 0.9),
        ("exponential", 24, 10, 0.94),
    ],
)
def test_joint_intervals_cover_together(kind: str, n: int, figures: int, least: float) -> None:
    rng = np.random.default_rng([n, figures, len(kind)])
    assert t_part(KINDS[kind](rng, (5_000 * LONGER, n)), figures) >= least


def test_the_units_do_not_show_which_intervals_miss() -> None:
    """Withholding the intervals of skewed units, or widening them by more, leaves exponential units uncovered."""
    draws = np.random.default_rng(7).exponential(size=(100_000 * LONGER, 6)) - 1.0
    value, error = draws.mean(axis=1), draws.std(axis=1, ddof=1) / np.sqrt(6)
    skewness = stats.skew(draws, axis=1)
    half = stats.t.ppf(1 - (1 - together(0.95, 100)) / 2, 5) * error

    def misses(slope: float, length: float = 1.0) -> Array:
        low = value - length * half * (1 + slope * np.maximum(-skewness, 0))
        high = value + length * half * (1 + slope * np.maximum(skewness, 0))
        return (low > 0) | (high < 0)

    def covered(missed: Array) -> float:
        return float((1 - missed.mean()) ** 100)

    plain = misses(1.0)
    assert abs(float(np.median(skewness[plain]))) < 0.3  # those that miss are not the ones that look skewed
    assert covered(plain) == pytest.approx(0.59, abs=0.06)  # standard error .014
    assert covered(plain & (np.abs(skewness) < 1.0)) < 0.68
    assert covered(misses(4.0)) < 0.76
    assert covered(misses(0.0, 2.0)) > 0.85


def test_whole_joint_intervals_of_ten_figures_of_six_units_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES", 500)
    hits, runs, zero = 0, 1_000 * LONGER, mean(np.zeros(6))
    for values in np.random.default_rng(6).normal(size=(runs, 6)):
        ends = paired_pooled_difference(mean(values), zero, seed=0, level=0.95, figures=10)
        hits += ends.low is not None and ends.high is not None and ends.low <= 0 <= ends.high
    assert (hits / runs) ** 10 >= 0.93  # standard error .02 with 1,000 runs; the bootstrap alone has .88


def test_two_samples_cover_together() -> None:
    rng, hits, level, runs = np.random.default_rng(1), 0, together(0.95, 10), 3_000 * LONGER
    for _ in range(runs):
        a, b = rng.normal(0.0, 1.0, 6), rng.normal(0.0, 3.0, 8)
        spread, value = two_sample_spread(Units(a), Units(b)), float(a.mean() - b.mean())
        assert spread is not None
        ends = spread.widened(Interval(value, value, value, 6), level)
        hits += (ends.low or 0.0) <= 0 <= (ends.high or 0.0)
    assert (hits / runs) ** 10 >= 0.93


def test_a_joint_interval_holds_the_bootstrap_and_the_t_interval() -> None:
    rng = np.random.default_rng(2)
    a, b = mean(rng.exponential(size=7)), mean(rng.exponential(size=7))
    for paired in (paired_pooled_difference, two_sample_difference):
        alone, joint = paired(a, b, seed=0, level=together(0.95, 20)), paired(a, b, seed=0, level=0.95, figures=20)
        assert None not in (alone.low, alone.high, joint.low, joint.high)
        assert (joint.low or 0.0) <= (alone.low or 0.0)
        assert (joint.high or 0.0) >= (alone.high or 0.0)
        assert joint.value == alone.value
    difference = a.numerators - b.numerators
    found = paired_pooled_difference(a, b, seed=0, level=0.95, figures=20)
    half = stats.t.ppf(1 - 0.05 / 40, 6) * difference.std(ddof=1) / np.sqrt(7)
    assert (found.high or 0.0) - (found.low or 0.0) >= 2 * half


def test_the_longer_tail_is_the_wider_side() -> None:
    flat, skewed = Spread(1.0, 9.0, 0.0), Spread(1.0, 9.0, 1.5)
    point = Interval(2.0, 2.0, 2.0, 10)
    a, b = flat.widened(point, 0.95), skewed.widened(point, 0.95)
    assert (a.low, a.high) == pytest.approx((2 - 2.262, 2 + 2.262), abs=1e-3)
    assert (b.low, b.high) == pytest.approx((2 - 2.262, 2 + 2.5 * 2.262), abs=3e-3)
    mirrored = Spread(1.0, 9.0, -1.5).widened(point, 0.95)
    assert (mirrored.low, mirrored.high) == pytest.approx((2 - 2.5 * 2.262, 2 + 2.262), abs=3e-3)


def test_where_there_is_no_spread() -> None:
    one = mean(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert paired_spread(mean(np.array([1.0])), mean(np.array([2.0]))) is None
    assert two_sample_spread(mean(np.array([1.0])), one) is None
    same = paired_spread(one, mean(one.numerators + 0.3))
    assert same is not None
    assert (same.error, same.findable(0.99)) == (0.0, 0.0)
    nothing = Interval(1.0, None, None, 3, "fewer than 5")
    assert Spread(1.0, 2.0, 0.0).widened(nothing, 0.95) is nothing
