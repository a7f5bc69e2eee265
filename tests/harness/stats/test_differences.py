"""Differences of pooled figures: agreement with the plain paired interval, coverage, tests that hold their level."""

from __future__ import annotations

import numpy as np
import pytest

from harness.stats.differences import Pooled, paired_p, paired_pooled_difference, two_sample_difference, two_sample_p
from harness.stats.intervals import paired_difference
from harness.stats.significance import sign_flip_p


def mean(values: list[float] | np.ndarray) -> Pooled:
    array = np.asarray(values, dtype=float)
    return Pooled(array, np.ones_like(array))


def test_of_means_it_is_the_paired_difference() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.exponential(1.0, 12), rng.exponential(1.0, 12)
    found, plain = paired_pooled_difference(mean(a), mean(b), seed=0), paired_difference(a, b, seed=0)
    assert found.value == pytest.approx(plain.value)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    assert paired_p(mean(a), mean(b), seed=0) == pytest.approx(sign_flip_p(a - b, seed=0))


def test_a_ratio_is_pooled_over_units_and_resampled_with_its_partner() -> None:
    rng = np.random.default_rng(1)
    below = rng.uniform(1.0, 5.0, 20)
    above = 0.5 * below * rng.uniform(0.5, 1.5, 20)
    found = paired_pooled_difference(Pooled(above * 1.1, below), Pooled(above, below), seed=0)
    assert found.value == pytest.approx(0.1 * above.sum() / below.sum())
    assert found.low is not None
    assert found.high is not None
    alone = two_sample_difference(Pooled(above * 1.1, below), Pooled(above, below), seed=0)
    assert alone.low is not None
    assert alone.high is not None
    assert found.high - found.low < 0.5 * (alone.high - alone.low)
    assert found.low > 0 > alone.low


def test_contributions_average_to_the_value() -> None:
    pooled = Pooled(np.array([1.0, 2.0, 6.0]), np.array([2.0, 2.0, 4.0]))
    assert pooled.contributions().mean() == pytest.approx(pooled.value)
    assert pooled.without_each() == pytest.approx([8 / 6, 7 / 6, 3 / 4])


def test_two_samples_cover_the_true_difference() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        found = two_sample_difference(mean(rng.normal(1.0, 1.0, 14)), mean(rng.normal(0.0, 3.0, 10)), seed=0)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 1.0 <= found.high
    assert covered >= 180  # .95 nominal; 180 of 200 is 3 standard errors below it


def test_a_permutation_test_holds_its_level_and_sees_a_shift() -> None:
    rng = np.random.default_rng(3)
    null = [two_sample_p(mean(rng.normal(size=9)), mean(rng.normal(size=12)), seed=0) for _ in range(100)]
    assert 0.3 < np.mean(null) < 0.7
    assert np.mean(np.array(null) <= 0.05) <= 0.12
    assert two_sample_p(mean(rng.normal(5.0, 1.0, 9)), mean(rng.normal(0.0, 1.0, 12)), seed=0) < 0.001


def test_where_there_is_no_honest_interval() -> None:
    few, many = mean([1.0, 2.0, 3.0]), mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert "fewer than 5" in str(two_sample_difference(few, many, seed=0).missing)
    assert "fewer than 5" in str(paired_pooled_difference(few, few, seed=0).missing)
    same = paired_pooled_difference(many, mean([2.0, 3.0, 4.0, 5.0, 6.0]), seed=0)
    assert same.value == pytest.approx(-1.0)
    assert (same.low, same.missing) == (None, "all units are equal: resampling has no spread")
    constant = two_sample_difference(mean([2.0] * 6), mean([1.0] * 6), seed=0)
    assert (constant.value, constant.low) == (1.0, None)


@pytest.mark.parametrize(
    ("above", "below"),
    [([], []), ([1.0], [0.0]), ([1.0, 2.0], [1.0, -1.0]), ([float("nan")], [1.0]), ([1.0, 2.0], [1.0])],
)
def test_figures_that_cannot_be(above: list[float], below: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pooled figure|numerators|same units"):
        Pooled(np.array(above), np.array(below))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths"):
        paired_pooled_difference(mean([1.0, 2.0]), mean([1.0]), seed=0)
    with pytest.raises(ValueError, match="level"):
        two_sample_difference(mean([1.0]), mean([1.0]), seed=0, level=1.5)


def test_ends_that_no_resample_reaches_are_stretched() -> None:
    """Nine units hold few different resamples; the interval of one figure among hundreds goes beyond all of them."""
    from scipy.stats import t

    rng = np.random.default_rng(0)
    a, b = rng.normal(0.0, 1.0, 9), rng.normal(0.0, 1.0, 9)
    for found in (
        lambda level: two_sample_difference(mean(a), mean(b), seed=0, level=level),
        lambda level: paired_pooled_difference(mean(a), mean(b), seed=0, level=level),
    ):
        ends = [found(level) for level in (0.95, 0.99, 0.999, 1 - 1e-4, 1 - 1e-5)]
        widths = [(end.high or 0.0) - (end.low or 0.0) for end in ends]
        assert (np.diff(widths) > 0).all()
    error = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 9)
    wide = two_sample_difference(mean(a), mean(b), seed=0, level=1 - 1e-4)
    assert ((wide.high or 0.0) - (wide.low or 0.0)) / (2 * t.ppf(1 - 5e-5, 16) * error) == pytest.approx(1.0, abs=0.25)
