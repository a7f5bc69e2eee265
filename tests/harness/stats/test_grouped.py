"""Means over grouped prompts: the t test where it is exact, CR2 against its matrix form, tests that fit intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.stats.grouped import GroupMean, MomentsAlong, group_mean, group_sums, mean_of_sums, moments, tails


def test_single_prompts_have_the_ordinary_standard_error() -> None:
    x = np.random.default_rng(0).normal(1.0, 2.0, 30)
    found = group_mean(x).found
    assert found is not None
    assert float(found.error) == pytest.approx(stats.sem(x))
    assert found.freedom == pytest.approx(29)
    assert float(found.skewness) == pytest.approx(stats.skew(x, bias=False) / np.sqrt(30), rel=0.02)


def test_groups_of_one_size_are_a_t_test_on_their_means() -> None:
    x = np.random.default_rng(1).normal(size=(12, 3))
    found = group_mean(x.ravel(), np.repeat(np.arange(12), 3)).found
    assert found is not None
    assert float(found.error) == pytest.approx(stats.sem(x.mean(axis=1)))
    assert found.freedom == pytest.approx(11)


def test_unequal_groups_are_cr2_as_written_with_matrices() -> None:
    """An independent reading of Bell and McCaffrey for a regression on a constant."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(7), [1, 2, 3, 3, 1, 2, 3])
    x, n = rng.normal(size=groups.size), groups.size
    design = np.ones((n, 1))
    left_out = np.eye(n) - design @ np.linalg.inv(design.T @ design) @ design.T
    rows, variance = [], 0.0
    for name in range(7):
        own = groups == name
        values, vectors = np.linalg.eigh(left_out[np.ix_(own, own)])
        adjusted = vectors @ np.diag(values**-0.5) @ vectors.T
        part = np.full(own.sum(), 1 / n) @ adjusted
        variance += float(part @ (x[own] - x.mean())) ** 2
        rows.append(part @ left_out[own])
    gram = np.array(rows) @ np.array(rows).T
    found = group_mean(x, groups).found
    assert found is not None
    assert float(found.error) ** 2 == pytest.approx(variance)
    assert found.freedom == pytest.approx(np.trace(gram) ** 2 / (gram**2).sum())


def test_a_value_is_outside_of_the_interval_exactly_where_its_p_is_small() -> None:
    rng = np.random.default_rng(3)
    for values in (rng.exponential(size=15), -rng.exponential(size=40), rng.normal(size=9)):
        mean = group_mean(values, np.arange(values.size) // 2)
        if mean.found is None:
            continue
        for level in (0.9, 0.95):
            found = mean.interval(level)
            assert found.low is not None
            assert found.high is not None
            assert mean.p(found.low) == pytest.approx(1 - level, rel=1e-6)
            assert mean.p(found.high) == pytest.approx(1 - level, rel=1e-6)
            assert (mean.p(found.low - 1e-3) or 1) < 1 - level < (mean.p(found.low + 1e-3) or 0)


def test_the_interval_reaches_farther_on_the_side_of_the_tail() -> None:
    x = np.random.default_rng(4).exponential(size=30)
    found, half = group_mean(x).interval(), -stats.t.ppf(0.025, 29) * stats.sem(x)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.value > 1.1 * half
    assert 0.8 * half < found.value - found.low < half
    mirrored = group_mean(-x).interval()
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_many_means_at_once_are_each_mean_alone() -> None:
    rng = np.random.default_rng(5)
    sizes = np.array([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    sums = rng.exponential(size=(4, 6)) * sizes
    together = moments(sums, sizes)
    below, above = tails(together, 0.3)
    for row in range(4):
        alone = mean_of_sums(sums[row], sizes)
        assert alone.found is not None
        assert alone.value == pytest.approx(together.value[row])
        assert alone.p(0.3) == pytest.approx(2 * min(below[row], above[row]))


@pytest.mark.parametrize("x", [-3.0, 0.0, 0.41, 12.0])
def test_moments_along_a_line_are_those_of_its_points(x: float) -> None:
    rng = np.random.default_rng(6)
    sizes = rng.integers(1, 4, size=25).astype(float)
    first, second = rng.exponential(size=(2, 25)) * sizes
    along, there = MomentsAlong(first, second, sizes), moments(first - x * second, sizes)
    assert along.freedom == pytest.approx(there.freedom)
    assert along.at(x) == pytest.approx((float(there.value), float(there.error), float(there.skewness)))
    below, above = tails(there, 0.0)
    assert (along.tail(x, -1), along.tail(x, 1)) == pytest.approx((float(below), float(above)))


def test_where_a_line_is_equal_everywhere_there_is_no_error() -> None:
    sizes = np.array([1.0, 2.0, 1.0, 3.0, 1.0, 2.0])
    rooms = np.random.default_rng(7).exponential(size=6) * sizes
    along = MomentsAlong(0.5 * rooms + 0.25 * sizes, rooms, sizes)
    assert along.at(0.5) == (pytest.approx(0.25), 0.0, 0.0)
    assert (along.tail(0.5, -1), along.tail(0.5, 1)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("values", "groups", "reason"),
    [
        ([1.0, 2.0, 3.0, 4.0], None, "fewer than 5"),
        ([1.0] * 12, None, "only 0 of 12 groups differ"),
        ([0.0] * 20 + [0.1, 0.2, 0.3, 0.9], None, "only 4 of 24 groups differ"),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], [0, 0, 0, 0, 0, 1, 2, 3, 4], "more than half"),
        ([], None, "no prompts"),
    ],
)
def test_where_there_is_no_honest_interval(values: list[float], groups: list[int] | None, reason: str) -> None:
    mean = group_mean(values, groups)
    found = mean.interval()
    assert (found.low, found.high, mean.p(), mean.spread()) == (None, None, None, None)
    assert reason in str(found.missing)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"values\[1\] is nan"):
        group_mean([1.0, float("nan")])
    with pytest.raises(ValueError, match="groups of shape"):
        group_sums([1.0, 2.0], [1])
    with pytest.raises(ValueError, match="at least one prompt"):
        mean_of_sums([1.0] * 5, [1.0, 1.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="level"):
        GroupMean(1.0, 1, 1, None).interval(1.5)
