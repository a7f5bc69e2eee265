"""Recovered share: closed forms, and coverage of its interval."""

from __future__ import annotations

import numpy as np
import pytest

from harness.stats.recovered import recovered_interval


def test_floor_and_ceiling() -> None:
    rooms = np.random.default_rng(0).normal(0.4, 0.2, 20)
    assert recovered_interval(rooms, rooms, 0).value == pytest.approx(1.0)
    assert recovered_interval(0 * rooms, rooms, 0).value == 0.0
    assert recovered_interval(0.3 * rooms, rooms, 0).value == pytest.approx(0.3)
    assert recovered_interval(0.3 * rooms, rooms, 0).low is None  # every resample says the same


def test_single_units_may_lack_room_but_not_the_mean() -> None:
    found = recovered_interval([0.2, 0.1, 0.3, 0.2, 0.0, 0.1], [0.5, -0.1, 0.6, 0.4, 0.3, 0.2], 0)
    assert found.value == pytest.approx(0.9 / 1.9)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.9 / 1.9 < found.high
    assert recovered_interval([0.1] * 6, [-0.1] * 6, 0).value is None
    assert recovered_interval([0.1] * 3, [0.2] * 3, 0).low is None
    with pytest.raises(ValueError, match="lengths"):
        recovered_interval([0.1], [0.1, 0.2], 0)


def test_the_interval_covers() -> None:
    rng = np.random.default_rng(1)
    inside, runs = 0, 120
    for run in range(runs):
        rooms = rng.normal(0.5, 0.2, 20)
        gains = 0.6 * rooms + rng.normal(0, 0.1, 20)
        found = recovered_interval(gains, rooms, run)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.6 <= found.high
    assert 0.86 <= inside / runs <= 1.0  # nominal .95; a binomial of 120 stays above .86 but once in 10,000
