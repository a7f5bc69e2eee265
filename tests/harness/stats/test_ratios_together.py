"""Intervals of many ratios made together are those that each has alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.core.records import Interval
from harness.stats.differences import Pooled
from harness.stats.intervals import ratio_interval, ratio_intervals
from harness.stats.pooling import Sample, prepare


def ratios() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(2)
    made = [(rng.normal(size=n), rng.random(n) + 0.1) for n in (12, 60, 12, 60, 61, *[60] * 25)]
    odd = [(np.ones(3), np.ones(3)), (np.ones(9), np.ones(9)), (np.zeros(0), np.zeros(0)), (np.ones(9), np.zeros(9))]
    return [*made, *odd, (np.array([1.0, np.inf, 2.0, 3.0, 4.0]), np.ones(5))]


def same(a: Interval, b: Interval) -> bool:
    numbers = [(a.value, b.value), (a.low, b.low), (a.high, b.high)]
    alike = all(x == y if x is None or y is None else x == pytest.approx(y, rel=1e-12) for x, y in numbers)
    return alike and (a.n, a.missing) == (b.n, b.missing)


def test_together_as_alone() -> None:
    columns = ratios()
    together = ratio_intervals(columns, seed=3, level=0.9)
    for found, (above, below) in zip(together, columns, strict=True):
        assert same(found, ratio_interval(above, below, seed=3, level=0.9))


def test_prepared_samples_have_the_intervals_that_they_make_themselves() -> None:
    def samples() -> list[Sample]:
        known = [(a, b) for a, b in ratios() if len(a) and b.sum() > 0 and np.isfinite(a).all()]
        made = [
            Sample(pd.Index(range(len(a))), Pooled(a, b), bool(k % 2), len(a), 0, None)
            for k, (a, b) in enumerate(known)
        ]
        return [*made, Sample(pd.Index([]), None, False, 0, 0, "nothing")]

    ready, alone = samples(), samples()
    prepare(ready)
    prepare(ready)
    assert all(same(a.interval(), b.interval()) for a, b in zip(ready, alone, strict=True))
