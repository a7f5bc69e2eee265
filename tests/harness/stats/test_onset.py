"""Where a falling mean crosses half of its start: by hand, against a written-out search, and in simulations."""

from __future__ import annotations

import numpy as np
import pytest

from harness.stats.onset import crossings, onset_interval


def test_crossings_by_hand() -> None:
    places = np.array([0.0, 0.5, 1.0, 2.0])
    means = np.array(
        [[0.8, 0.6, 0.2, 0.0], [0.8, 0.4, 0.1, 0.0], [0.8, 0.7, 0.6, 0.5], [0.0, 0.0, 0.0, 0.0], [1.0, 0.4, 0.9, 0.1]]
    )
    assert crossings(places, means) == pytest.approx([0.75, 0.5, np.nan, np.nan, 0.5 * 0.5 / 0.6], nan_ok=True)
    assert crossings(places, means[0]) == pytest.approx(0.75)


def test_crossings_against_a_search() -> None:
    rng = np.random.default_rng(0)
    places = np.cumsum(rng.random(6))
    for means in rng.random((200, 6)):
        grid = np.linspace(places[0], places[-1], 200_001)
        line = np.interp(grid, places, means)
        below = np.flatnonzero(line <= 0.5 * means[0])
        expected = grid[below[0]] if len(below) else np.nan
        assert float(crossings(places, means)) == pytest.approx(expected, abs=2e-4, nan_ok=True)


def test_intervals_cover_where_units_are_grouped() -> None:
    """True curve 1 - T / 2: half at T = 1. Noise is shared by groups of three, so that single units would mislead."""
    places, truth = [0.0, 0.5, 1.0, 1.5], np.array([1.0, 0.75, 0.5, 0.25])
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(40), 3)
    inside, narrow = 0, 0
    for trial in range(120):
        noise = rng.normal(0, 0.25, (40, 4))[groups] + rng.normal(0, 0.05, (120, 4))
        found = onset_interval(places, truth + noise, groups, trial)
        alone = onset_interval(places, truth + noise, None, trial)
        assert found.low is not None and found.high is not None and alone.low is not None and alone.high is not None
        inside += found.low <= 1.0 <= found.high
        narrow += alone.low <= 1.0 <= alone.high
    assert 0.88 <= inside / 120 <= 1.0
    assert narrow < inside - 12


def test_a_difference_is_paired() -> None:
    places, rng = [0.0, 0.5, 1.0, 1.5], np.random.default_rng(2)
    base = np.array([1.0, 0.75, 0.5, 0.25]) + rng.normal(0, 0.3, (60, 1))
    later = np.maximum(base + np.array([0.0, 0.1, 0.1, 0.05]), 0.0)
    own, other = onset_interval(places, later, None, 0), onset_interval(places, base, None, 0)
    both = onset_interval(places, later, None, 0, minus=base)
    assert both.value == pytest.approx(own.value - other.value)
    assert both.high - both.low < 0.5 * (own.high - own.low)
    same = onset_interval(places, base, None, 0, minus=base)
    assert same.value == 0


def test_what_has_no_onset() -> None:
    flat = np.full((30, 3), 0.4)
    assert "does not fall to half by 1" in str(onset_interval([0, 0.5, 1], flat, None, 0).missing)
    assert onset_interval([0, 1], np.zeros((0, 2)), None, 0).missing == "no units"
    with pytest.raises(ValueError, match="ascend"):
        onset_interval([0, 0], flat[:, :2], None, 0)
    with pytest.raises(ValueError, match="minus"):
        onset_interval([0, 1], flat[:, :2], None, 0, minus=flat)
