"""Intervals by coverage, by what they are invariant to, and by the cases in which there is none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from harness.core.records import Interval
from harness.stats import resampling
from harness.stats.correlation import spearman_interval
from harness.stats.explained import explained_interval
from harness.stats.intervals import mean_interval, median_interval, paired_difference, ratio_interval
from harness.stats.significance import holm, sign_flip_p

Draw = Callable[[np.random.Generator], Interval]
numbers = st.floats(-100, 100).map(lambda x: round(x, 3))


def ends(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None, interval.missing
    assert interval.high is not None
    return interval.low, interval.high


def coverage(draw: Draw, truth: float, repeats: int) -> float:
    """Share of repeats whose interval holds the truth; an interval that does not exist holds nothing."""
    hits = 0
    for repeat in range(repeats):
        interval = draw(np.random.default_rng([repeat, 12]))
        hits += interval.low is not None and interval.high is not None and interval.low <= truth <= interval.high
    return hits / repeats


def ratio_of_12_units(rng: np.random.Generator) -> Interval:
    sizes = rng.lognormal(0, 0.7, 12)
    return ratio_interval(sizes * rng.beta(2, 2, 12), sizes, seed=0)


# 2,000 repeats: the Monte Carlo standard error of a coverage of .93 is .006.
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        pytest.param(lambda rng: mean_interval(rng.normal(size=12), seed=0), 0.0, id="normal"),
        pytest.param(lambda rng: mean_interval(rng.exponential(size=12), seed=0), 1.0, id="exponential"),
        pytest.param(lambda rng: mean_interval(rng.beta(0.5, 2, 12), seed=0), 0.2, id="share near 0"),
        pytest.param(ratio_of_12_units, 0.5, id="ratio"),
        pytest.param(lambda rng: median_interval(rng.exponential(size=12)), math.log(2), id="median"),
    ],
)
def test_95_percent_intervals_of_12_units_cover_90_percent_at_least(
    draw: Draw, truth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES", 2000)
    assert 0.9 <= coverage(draw, truth, 2000) <= 0.985


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_rank_correlations_of_12_normal_pairs_are_covered(rho: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES", 1000)

    def draw(rng: np.random.Generator) -> Interval:
        a, b = rng.normal(size=(2, 12))
        return spearman_interval(a, rho * a + math.sqrt(1 - rho**2) * b, seed=0)

    # 400 repeats: standard error .011.
    assert coverage(draw, 6 / math.pi * math.asin(rho / 2), 400) >= 0.9


@settings(deadline=None, max_examples=25)
@given(st.lists(numbers, min_size=5, max_size=20).filter(lambda x: np.ptp(x) > 0.1), st.integers(0, 5))
def test_means_move_and_stretch_with_the_data_and_stay_inside_it(values: list[float], seed: int) -> None:
    x = np.array(values)
    interval, moved = mean_interval(x, seed), mean_interval(3 - 2 * x, seed)
    assert interval == mean_interval(x, seed)
    low, high = ends(interval)
    assert interval.value == pytest.approx(x.mean(), abs=1e-12)
    assert x.min() - 1e-9 <= low <= x.mean() <= high <= x.max() + 1e-9
    assert ends(moved) == pytest.approx((3 - 2 * high, 3 - 2 * low), abs=1e-6)


def test_large_samples_give_the_normal_interval() -> None:
    x = np.random.default_rng(0).normal(5, 2, 3000)
    low, high = ends(mean_interval(x, seed=1))
    half = 1.96 * x.std(ddof=1) / math.sqrt(x.size)
    assert low == pytest.approx(x.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(x.mean() + half, abs=0.05 * half)
    assert mean_interval(x[:50], seed=1) != mean_interval(x[:50], seed=2)


def test_a_higher_level_is_wider() -> None:
    x = np.random.default_rng(1).exponential(size=15)
    low, high = ends(mean_interval(x, seed=0, level=0.8))
    lowest, highest = ends(mean_interval(x, seed=0, level=0.99))
    assert lowest < low < high < highest


def test_a_ratio_pools_and_weighs() -> None:
    a, b, w = np.array([1.0, 2, 3, 4, 9]), np.array([2.0, 2, 5, 4, 4]), np.array([1.0, 2, 1, 0, 1])
    assert ratio_interval(a, b, seed=0).value == pytest.approx(19 / 17)
    assert ratio_interval(a, b, seed=0, weights=w).value == pytest.approx(17 / 15)
    assert ratio_interval(a, b, seed=3, weights=w) == ratio_interval(a * w, b * w, seed=3)
    assert ratio_interval(a, np.ones(5), seed=3) == mean_interval(a, seed=3)
    ratio, explained = ratio_interval(a, b, seed=0), explained_interval(a, b, seed=0)
    assert explained.value == pytest.approx(1 - 19 / 17)
    assert ends(explained) == tuple(1 - end for end in reversed(ends(ratio)))


def test_the_share_explained() -> None:
    for divergence, share in ((0.0, 1.0), (2.0, 0.0), (3.0, -0.5), (math.inf, -math.inf)):
        assert explained_interval([divergence], [2.0], seed=0).value == share
    assert explained_interval([0.0], [0.0], seed=0).value is None
    with pytest.raises(ValueError, match=r"denominators\[0\] is inf"):
        explained_interval([1.0], [math.inf], seed=0)
    with pytest.raises(ValueError, match=r"numerators\[0\] is nan"):
        explained_interval([math.nan], [1.0], seed=0)


def test_nothing_is_explained_where_counts_leave_nothing_to_explain() -> None:
    counts, surrogate = np.full(6, 2e-5), np.full(6, 1e-5)  # nats, summed over 100 queries a prompt
    missing = explained_interval(surrogate, counts, seed=0, queries=600)
    assert missing.value is None
    assert missing.missing is not None
    assert "counts alone predict" in missing.missing
    assert explained_interval(surrogate, counts, seed=0, queries=60).value == pytest.approx(0.5)


def test_a_difference_is_of_pairs() -> None:
    rng = np.random.default_rng(0)
    common, effect = rng.normal(0, 100, 20), rng.normal(1, 0.1, 20)
    low, high = ends(paired_difference(common + effect, common, seed=0))
    assert 0.9 < low < 1 < high < 1.1


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=12))
def test_rank_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=float).T
    interval = spearman_interval(a, b, seed=0)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert interval.value is None
    else:
        assert interval.value == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
        if interval.low is not None and interval.high is not None:
            assert -1 <= interval.low <= interval.high <= 1


def test_medians_lie_between_order_statistics() -> None:
    # P(Binomial(12, 1/2) <= 2) = 79/4096: the third from either end covers 1 - 158/4096 = .961.
    assert median_interval(np.arange(12.0)) == Interval(5.5, 2.0, 9.0, 12)
    assert median_interval(np.arange(6.0)) == Interval(2.5, 0.0, 5.0, 6)
    assert median_interval([math.inf, 1, 2, 3, 4, 5, 6]) == Interval(4.0, 1.0, math.inf, 7)
    assert median_interval([math.inf, -math.inf]).value is None


@pytest.mark.parametrize(
    ("interval", "value", "reason"),
    [
        (mean_interval([], seed=0), None, "no units"),
        (median_interval([]), None, "no units"),
        (mean_interval([3.0], seed=0), 3.0, "1 unit: fewer than 5"),
        (mean_interval([1.0, 2, 3, 4], seed=0), 2.5, "4 units: fewer than 5"),
        (mean_interval([0.1] * 12, seed=0), 0.1, "all units are equal"),
        (mean_interval([1.0, math.inf, 2, 3, 4, 5], seed=0), math.inf, "1 of 6 units are infinite"),
        (mean_interval([-math.inf, math.inf, 2, 3, 4, 5], seed=0), None, "2 of 6 units are infinite"),
        (median_interval([1.0, 2, 3, 4, 5]), 3.0, "too few units for a 95% interval"),
        (ratio_interval([1.0, 2], [0.0, 0], seed=0), None, "denominators sum to 0"),
        (ratio_interval([0.0] * 5 + [1], [0.0] * 5 + [2], seed=0), 0.5, "one unit carries all"),
        (ratio_interval([0.0] * 4 + [1, 3], [0.0] * 4 + [2, 2], seed=0), 1.0, "in some resamples"),
        (ratio_interval([1.0, 2, 3, 4, 6], [2.0, 4, 6, 8, 12], seed=0), 0.5, "all units are equal"),
        (explained_interval([math.inf, 1, 1], [1.0, 1, 1], seed=0), -math.inf, "1 of 3 units are infinite"),
        (spearman_interval([1.0, 2, 3], [1.0, 2, 3], seed=0), None, "fewer than 4 units"),
        (spearman_interval([1.0] * 6, np.arange(6), seed=0), None, "the first variable is constant"),
        (spearman_interval(np.arange(6), [1.0] * 6, seed=0), None, "the second variable is constant"),
        (spearman_interval(np.arange(6), -np.arange(6), seed=0), -1.0, "perfect rank correlation"),
        (spearman_interval([1.0, 2, 3, 4], [1.0, 3, 2, 4], seed=0), 0.8, "4 units: fewer than 5"),
    ],
)
def test_no_interval_is_better_than_a_made_up_one(interval: Interval, value: float | None, reason: str) -> None:
    assert interval.low is interval.high is None
    assert interval.missing is not None
    assert reason in interval.missing
    assert interval.value == (value if value is None else pytest.approx(value))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=7))
def test_sign_flips_are_counted_exactly(differences: list[int]) -> None:
    flips = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in flips]
    expected = sum(s >= abs(sum(differences)) for s in sums) / len(sums)
    assert sign_flip_p(differences, seed=0) == pytest.approx(expected)
    assert sign_flip_p(np.array(differences) / 10, seed=0) == pytest.approx(expected)


def test_random_sign_flips_agree_with_the_t_test() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.3):
        x: NDArray[np.float64] = rng.normal(shift, 1, 60)
        p = sign_flip_p(x, seed=0)
        assert p == pytest.approx(stats.ttest_1samp(x, 0).pvalue, abs=0.02)
        assert p == sign_flip_p(x, seed=0)
    assert sign_flip_p(np.full(60, 2.0), seed=0) == pytest.approx(1 / 10_001)


def test_holm() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    assert holm([]).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0, math.nan], seed=0), r"values\[1\] is nan"),
        (lambda: median_interval([math.nan]), r"values\[0\] is nan"),
        (lambda: ratio_interval([1.0], [math.nan], seed=0), r"denominators\[0\] is nan"),
        (lambda: ratio_interval([1.0, 1], [1.0, -2], seed=0), r"denominators\[1\] is -2"),
        (lambda: ratio_interval([1.0], [1.0], seed=0, weights=[math.inf]), r"weights\[0\] is inf"),
        (lambda: ratio_interval([1.0, 2], [1.0], seed=0), "numerators 2, denominators 1"),
        (lambda: paired_difference([1.0], [math.inf], seed=0), r"b\[0\] is inf"),
        (lambda: paired_difference([1.0, 2], [1.0], seed=0), "a 2, b 1"),
        (lambda: spearman_interval([1.0, math.nan], [1.0, 2], seed=0), r"a\[1\] is nan"),
        (lambda: sign_flip_p([1.0, math.nan], seed=0), r"differences\[1\] is nan"),
        (lambda: sign_flip_p([], seed=0), "no differences"),
        (lambda: holm([0.5, math.nan]), r"p_values\[1\] is nan"),
        (lambda: holm([0.5, 1.5]), r"p_values\[1\] is 1.5"),
        (lambda: mean_interval([[1.0]], seed=0), r"shape \(1, 1\)"),
        (lambda: mean_interval([1.0], seed=0, level=1.0), "level"),
        (lambda: median_interval([1.0], level=0.0), "level"),
    ],
)
def test_wrong_input_is_refused_by_name_and_index(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
