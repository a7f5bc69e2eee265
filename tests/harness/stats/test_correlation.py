"""Rank correlation averaged over seeds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.stats.correlation import mean_spearman_interval, spearman_interval
from harness.stats.intervals import bootstrap_interval

rng = np.random.default_rng(0)
X = rng.normal(size=15)
SEEDS = np.stack([X + rng.normal(size=15) for _ in range(3)])


def test_the_mean_is_that_of_scipys_correlations() -> None:
    found = mean_spearman_interval(X, SEEDS, 0)
    assert found.value == pytest.approx(np.mean([stats.spearmanr(X, y).statistic for y in SEEDS]))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_one_seed_is_the_plain_correlation() -> None:
    assert mean_spearman_interval(X, SEEDS[:1], 4) == spearman_interval(X, SEEDS[0], 4)


def test_a_constant_seed_counts_as_none() -> None:
    constant = np.vstack([SEEDS, np.ones((1, 15))])
    assert mean_spearman_interval(X, constant, 0).value == pytest.approx(
        0.75 * mean_spearman_interval(X, SEEDS, 0).value
    )
    nothing = mean_spearman_interval(X, np.ones((3, 15)), 0)
    assert (nothing.value, nothing.missing) == (None, "the second variable is constant for every seed")
    assert mean_spearman_interval(np.ones(15), SEEDS, 0).missing == "the first variable is constant"


def test_a_unit_without_a_value_is_left_out_of_all_seeds() -> None:
    holes = SEEDS.copy()
    holes[1, [2, 7]] = np.nan
    kept = np.delete(np.arange(15), [2, 7])
    found = mean_spearman_interval(X, holes, 0)
    assert found.n == 13
    assert found.value == pytest.approx(np.mean([stats.spearmanr(X[kept], y[kept]).statistic for y in SEEDS]))
    assert mean_spearman_interval(X[:3], SEEDS[:, :3], 0).missing == "fewer than 4 units"


def test_identical_seeds_have_the_interval_of_one() -> None:
    one, three = spearman_interval(X, SEEDS[0], 0), mean_spearman_interval(X, np.stack([SEEDS[0]] * 3), 0)
    assert three.low == pytest.approx(one.low)
    assert three.high == pytest.approx(one.high)


@pytest.mark.parametrize("shape", [(15,), (0, 15), (2, 14)])
def test_shapes_that_do_not_match(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"b must have shape \[s, 15\]"):
        mean_spearman_interval(X, np.zeros(shape), 0)


@pytest.mark.parametrize("digits", [0, 3])
def test_counted_ranks_give_the_interval_of_sorted_ones(digits: int) -> None:
    """The same draws, ranked one by one with scipy: not a digit differs."""
    generator = np.random.default_rng(5)
    x, y = np.round(generator.normal(size=(2, 17)), digits)

    def one_by_one(rows: np.ndarray) -> np.ndarray:
        made = []
        for drawn in rows:
            a, b = (stats.rankdata(one[drawn]) - (len(drawn) + 1) / 2 for one in (x, y))
            norm = np.sqrt((a * a).sum() * (b * b).sum())
            made.append((a * b).sum() / norm if norm > 0 else np.nan)
        return np.array(made)

    assert spearman_interval(x, y, seed=3) == bootstrap_interval(one_by_one, 17, seed=3)
