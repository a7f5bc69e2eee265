"""Figures over pairs: agreement with the jackknife, intervals that cover, laws that are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from harness.stats.grouped import group_mean
from harness.stats.pairs import _at_least, law_distance, pair_contributions


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(x[:, None] - y[None, :]))


def test_contributions_average_to_the_mean_and_vary_as_the_jackknife() -> None:
    rng = np.random.default_rng(0)
    x = distances(rng.exponential(size=40), rng.exponential(size=40))
    off = ~np.eye(40, dtype=bool)
    found = pair_contributions(x)
    assert found.mean() == pytest.approx(x[off].mean())
    without = []
    for k in range(40):
        rest = np.delete(np.delete(x, k, axis=0), k, axis=1)
        without.append(rest[~np.eye(39, dtype=bool)].mean())
    pseudo = 40 * x[off].mean() - 39 * np.array(without)
    assert found.std() == pytest.approx(pseudo.std(), rel=0.06)
    assert np.corrcoef(found, pseudo)[0, 1] > 0.999


def test_intervals_of_pairs_cover_and_rows_taken_for_independent_do_not() -> None:
    """The mean distance of two normal values, 2 / sqrt(pi), from 30 prompts whose continuations are shared."""
    rng, true, runs = np.random.default_rng(1), 2 / np.sqrt(np.pi), 200
    covered = {"pairs": 0, "rows": 0}
    for _ in range(runs):
        y = rng.normal(size=30)
        scores = distances(y, y)
        np.fill_diagonal(scores, np.nan)
        for name, values in (("pairs", pair_contributions(scores)), ("rows", np.nanmean(scores, axis=0))):
            found = group_mean(values).interval()
            assert found.low is not None
            assert found.high is not None
            covered[name] += found.low <= true <= found.high
    assert covered["pairs"] / runs > 0.9
    assert covered["rows"] / runs < 0.8


def test_pairs_of_a_group_and_pairs_without_a_score_do_not_count() -> None:
    scores = np.array([[9.0, 8.0, 1.0], [7.0, 9.0, np.nan], [3.0, 5.0, 9.0]])
    assert pair_contributions(scores, [0, 0, 1]).mean() == pytest.approx(3.0)
    assert pair_contributions(scores).mean() == pytest.approx((8 + 1 + 7 + 3 + 5) / 5)


def test_equal_laws_are_rarely_told_apart_and_others_often() -> None:
    """Prompts differ, groups share, each side has its own seeds. A shift of the law is found, and so is its width."""
    rng, runs = np.random.default_rng(2), 80
    groups = np.repeat(np.arange(15), 2)
    found = {"equal": 0, "shifted": 0, "narrow": 0}
    for run in range(runs):
        prompt = np.repeat(rng.normal(size=15), 2) + rng.normal(size=30)
        y = prompt + rng.normal(size=30)
        other = {
            "equal": prompt + rng.normal(size=30),
            "shifted": prompt + rng.normal(size=30) + 1.0,
            "narrow": 0.2 * rng.normal(size=30),
        }
        for name, x in other.items():
            found[name] += law_distance(distances(x, y), distances(x, x), distances(y, y), groups, run).p <= 0.05
    assert found["equal"] / runs <= 0.125  # three standard errors above 5 %
    assert found["shifted"] / runs >= 0.8
    assert found["narrow"] / runs >= 0.8


def test_the_distance_is_that_of_the_laws() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=300) + 1.0, rng.normal(size=300)
    found = law_distance(distances(x, y), distances(x, x), distances(y, y), None, 0)
    # E|X - Y| of a difference N(1, 2), and 2 / sqrt(pi) within each
    from scipy.stats import foldnorm

    exact = 2 * foldnorm.mean(1 / np.sqrt(2), scale=np.sqrt(2)) - 4 / np.sqrt(np.pi)
    assert found.value == pytest.approx(exact, abs=0.15)
    assert (found.n, found.groups) == (300, 300)


@pytest.mark.parametrize(
    ("scores", "groups", "message"),
    [
        (np.zeros((2, 3)), None, "square"),
        (np.zeros((2, 2)), [0, 0], "no pair"),
        (np.zeros((2, 2)), [0], "groups of shape"),
        (np.full((2, 2), np.inf), None, "infinite"),
    ],
)
def test_wrong_arguments_are_refused(scores: np.ndarray, groups: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pair_contributions(scores, groups)
    with pytest.raises(ValueError, match="must be the same"):
        law_distance(np.zeros((2, 2)), np.zeros((3, 3)), np.zeros((2, 2)), None, 0)


def test_quadratic_forms_are_counted_as_in_full_precision() -> None:
    rng = np.random.default_rng(5)
    signs = (rng.integers(0, 2, size=(500, 30)) * 2 - 1).astype(np.float32)
    form = rng.normal(size=(30, 30)) * 1e-8
    exact = ((signs.astype(float) @ form) * signs).sum(axis=1)
    for edge in (*(np.sort(exact)[[0, 100, 250, 499]] - 1e-20), 0.0, 1.0):
        assert _at_least(float(edge), signs, form) == np.count_nonzero(exact >= edge)
    nothing = np.zeros((30, 30))
    assert [_at_least(edge, signs, nothing) for edge in (0.0, 1e-9)] == [500, 0]
