"""The median over heads: an interval over the prompts that all of them share, never over heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.stats import intervals, median, resampling
from harness.stats.differences import Pooled
from harness.stats.median import median_of_heads
from harness.stats.pooling import NOT_DRAWN, Sample


def samples(above: Any, below: Any = None, drawn: bool = True, **changes: Any) -> list[Sample]:
    """A sample for each column of [prompts, heads]."""
    above = np.asarray(above, dtype=float)
    below = np.ones_like(above) if below is None else np.asarray(below, dtype=float)
    units = pd.Index([f"p{i}" for i in range(len(above))])
    return [
        Sample(units, Pooled(a, b), True, len(a), changes.get("missing", 0), None, drawn)
        for a, b in zip(above.T, below.T, strict=True)
    ]


def test_the_resampled_medians_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    above, below = rng.uniform(0.1, 0.9, (7, 5)), rng.uniform(0.5, 2.0, (7, 5))
    median_of_heads(samples(above, below))  # draws that are kept are not those of another number of resamples
    monkeypatch.setattr(resampling, "RESAMPLES", 200)
    seen: dict[str, Any] = {}
    monkeypatch.setattr(median, "bca", lambda *given: seen.update(given=given) or intervals.bca(*given))
    found = median_of_heads(samples(above, below))
    value, replicates, jackknife, n, tail = seen["given"]
    assert found.n == n == 7
    assert value == pytest.approx(np.median(1 - above.sum(0) / below.sum(0)))
    rows = np.random.default_rng(0).integers(0, 7, (200, 7))  # the draws of `resampled`
    expected = [np.median(1 - above[row].sum(0) / below[row].sum(0)) for row in rows]
    assert replicates == pytest.approx(np.array(expected))
    kept = [[p for p in range(7) if p != gone] for gone in range(7)]
    assert jackknife == pytest.approx(np.array([np.median(1 - above[k].sum(0) / below[k].sum(0)) for k in kept]))
    assert 0 < tail < 0.025  # wider than a normal interval


def test_equal_heads_are_one_head_and_more_of_them_narrow_nothing() -> None:
    column = np.random.default_rng(1).uniform(0.2, 0.8, (9, 1))
    one, many = (median_of_heads(samples(np.repeat(column, heads, axis=1))) for heads in (1, 200))
    assert (one.value, one.low, one.high) == pytest.approx((many.value, many.low, many.high))
    assert one.n == many.n == 9


def test_the_interval_covers_the_median_of_these_heads_over_prompts() -> None:
    """12 prompts that shift all 15 heads together: the interval covers as often as that of a mean of 12 values."""
    rng, truth, hits, runs = np.random.default_rng(2), np.linspace(0.1, 0.9, 15), 0, 150
    for _ in range(runs):
        shift = rng.normal(0, 0.1, (12, 1)) + rng.normal(0, 0.02, (12, 15))
        found = median_of_heads(samples(1 - truth + shift))
        assert found.low is not None and found.high is not None
        hits += found.low <= 0.5 <= found.high
    assert hits / runs >= 0.88  # .94 expected; four standard errors are .08


def test_prompts_of_a_group_are_drawn_together() -> None:
    above = np.random.default_rng(4).uniform(0.2, 0.8, (12, 3))
    groups = np.array([f"g{i // 2}" for i in range(12)], dtype=object)
    grouped = [replace(one, groups=groups) for one in samples(above)]
    summed = samples(above.reshape(6, 2, 3).sum(axis=1), np.full((6, 3), 2.0))
    found, expected = median_of_heads(grouped), median_of_heads(summed)
    assert (found.n, found.value) == (6, pytest.approx(median_of_heads(samples(above)).value))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (samples(np.full((4, 3), 0.5)), "4 units: fewer than 5 cannot carry an interval"),
        (samples(np.random.default_rng(3).uniform(size=(8, 3)), drawn=False), NOT_DRAWN),
        (samples(np.full((8, 3), 0.5)), "all units are equal: resampling has no spread"),
        (samples(np.full((8, 3), 0.5), missing=1), "no heads"),
        ([], "no heads"),
    ],
)
def test_where_there_is_no_interval(given: list[Sample], reason: str) -> None:
    found = median_of_heads(given)
    assert (found.low, found.high, found.missing) == (None, None, reason)


def test_a_head_with_nothing_to_divide_by_in_a_draw_is_left_out_of_it() -> None:
    above, below = np.full((6, 3), 0.5), np.ones((6, 3))
    above += np.linspace(0, 0.1, 6)[:, None]
    below[1:, 2] = 0.0  # one head has something to explain on the first prompt only
    above[1:, 2] = 0.0
    found = median_of_heads(samples(above, below))
    assert found.low is not None and found.n == 6
    below[1:], above[1:] = 0.0, 0.0
    assert "no head has anything to divide by" in str(median_of_heads(samples(above, below)).missing)
