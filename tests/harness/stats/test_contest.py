"""Who leads: tests of one figure against others, corrected together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.stats.contest import beyond_chance, clear, p_of_lead, p_of_zero
from harness.stats.differences import Pooled
from harness.stats.pooling import Sample
from harness.stats.significance import holm, sign_flip_p


def sample(values: np.ndarray, complement: bool = False, below: np.ndarray | None = None) -> Sample:
    units = pd.Index([f"p{i}" for i in range(len(values))])
    return Sample(units, Pooled(values, np.ones_like(values) if below is None else below), complement, 0, 0, None)


def test_the_best_beats_all_others_not_only_the_last() -> None:
    rng = np.random.default_rng(1)
    level = rng.uniform(1, 2, 12)
    best, near, far = level, level + 0.1 * rng.normal(size=12), level + 1 + 0.1 * rng.normal(size=12)
    tests = [p_of_lead(sample(best), sample(other), -1) for other in (near, far)]
    assert tests[1] < 0.001 < tests[0]
    assert clear([tests]) == [False]
    assert clear([tests[1:]]) == [True]
    assert clear([[], tests[1:], [0.04]]) == [False, True, True]
    assert clear([[0.03], [0.04]]) == [False, False]  # each alone would be, two together are not


def test_families_are_corrected_as_holm_does() -> None:
    p_values = [0.001, 0.02, 0.03, None, 0.2]
    expected = holm([0.001, 0.02, 0.03, 1.0, 0.2]) <= 0.05
    assert beyond_chance(p_values) == list(expected)
    assert beyond_chance([]) == []


def test_a_lead_is_tested_on_common_units_and_in_its_direction() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.0, 1.0, 10), rng.normal(3.0, 1.0, 10)
    assert p_of_lead(sample(a), sample(b), -1) == pytest.approx(sign_flip_p(a - b, 0))
    assert p_of_lead(sample(a), sample(b), 1) == 1.0  # it is no lead in that direction
    assert p_of_lead(sample(a, complement=True), sample(b, complement=True), 1) < 0.01
    assert p_of_lead(sample(a), sample(a), 1) == 1.0
    assert p_of_lead(sample(a[:4]), sample(b[:4]), -1) == 1.0
    assert p_of_lead(sample(a), sample(b), -1, paired=False) < 0.001
    assert p_of_lead(Sample(pd.Index([]), None, False, 0, 0, None), sample(b), 1) == 1.0


def test_a_share_of_nothing_is_tested_against_nothing() -> None:
    rng = np.random.default_rng(3)
    below = rng.uniform(1, 5, 12)
    assert p_of_zero(sample(below * (1 + 0.2 * rng.normal(size=12)), True, below)) > 0.05
    assert p_of_zero(sample(below * (0.5 + 0.05 * rng.normal(size=12)), True, below)) < 0.001
