"""The smallest difference that a run could have found: closed form, and found as often as it says."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.records import Interval
from harness.stats.intervals import mean_interval
from harness.stats.power import smallest_difference


def test_it_is_2_8_standard_errors() -> None:
    assert smallest_difference(Interval(0.5, -1.96, 1.96, 30)) == pytest.approx(2.8)
    assert smallest_difference(Interval(0.5, None, None, 3, "too few")) is None


def test_such_a_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    found, runs = 0, 200
    for run in range(runs):
        interval = mean_interval(rng.normal(2.8 / np.sqrt(40), 1.0, 40), run)
        assert interval.low is not None
        found += interval.low > 0
    assert 0.7 <= found / runs <= 0.9  # a binomial of 200 at .8 leaves this range once in 1,000
