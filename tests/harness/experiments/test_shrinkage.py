"""Fits against what they are shrunk to: found worse where they are, and only beyond chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.core.records import Interval
from harness.core.rows import Rows
from harness.experiments.heads.shrinkage import fits, shrinkage
from harness.experiments.heads.tables import shrinkage_tables
from harness.stats.intervals import paired_difference
from harness.stats.pooling import SEED
from harness.stats.significance import holm, sign_flip_p


def made(shift: dict[int, float], heads: int = 20, prompts: int = 30) -> pd.DataFrame:
    """Rows of a fit that is worse than its prior by `shift` at some heads, and by noise alone at the others."""
    rng, rows = np.random.default_rng(0), Rows(experiment="heads", model="m", split="held_out", seed=0, strategy="s")
    for head in range(heads):
        for prompt in range(prompts):
            shared = {"layer": 3, "head": head, "prompt": f"p{prompt}", "n": 10}
            base = float(rng.gamma(5.0, 0.1))
            rows.add("kl", base, surrogate="pccmc-weights", **shared)
            rows.add("kl", base * 1.5, surrogate="counts", **shared)
            noise = float(rng.normal(0.0, 0.02))
            rows.add("kl", max(base + shift.get(head, 0.0) + noise, 0.0), surrogate="pccmc-fit", **shared)
    return rows.frame()


def test_fits_declare_what_they_are_shrunk_to() -> None:
    assert fits() == {"ccmc-fit": "ccmc-weights", "pccmc-scaled": "pccmc-weights", "pccmc-fit": "pccmc-weights"}


def test_noise_is_not_called_worse() -> None:
    found = shrinkage(made({}), "pccmc-fit")
    assert found is not None
    assert (found.heads, found.prompts) == (20, 30)
    assert found.worse > 0
    assert found.significant == 0
    assert found.verdict == "holds"


def test_heads_that_are_worse_are_found_and_the_worst_is_named() -> None:
    found = shrinkage(made({4: 0.05, 7: 0.2}), "pccmc-fit")
    assert found is not None
    assert found.significant == 2
    assert found.head == (3, 7)
    assert found.verdict == "does not hold"
    assert found.difference.low is not None
    assert found.difference.low > 0.15
    assert found.overall.value == pytest.approx((0.05 + 0.2) / 20, abs=0.003)


def test_a_better_fit_holds() -> None:
    found = shrinkage(made(dict.fromkeys(range(20), -0.2)), "pccmc-fit")
    assert found is not None
    assert (found.worse, found.significant) == (0, 0)


def test_few_prompts_can_find_nothing() -> None:
    found = shrinkage(made({7: 0.2}, prompts=8), "pccmc-fit")
    assert found is not None
    assert found.significant == 0
    assert not found.testable  # the smallest p-value of 8 prompts is 2**-7, above .05 / 20
    assert found.verdict == "too few prompts"


def test_the_tests_are_those_of_plain_arrays() -> None:
    rows = made({4: 0.05, 7: 0.2, 9: 0.01})
    means = rows.groupby(["surrogate", "head", "prompt"])["value"].mean()
    table = (means["pccmc-fit"] - means["pccmc-weights"]).unstack("prompt").to_numpy(dtype=float)
    worse = table.mean(1) > 0
    p = np.array([sign_flip_p(row, SEED) if bad else 1.0 for row, bad in zip(table, worse, strict=True)])
    found = shrinkage(rows, "pccmc-fit")
    assert found is not None
    assert found.worse == worse.sum()
    assert found.significant == (worse & (holm(p) <= 0.05)).sum()
    expected = paired_difference(table[7], np.zeros(30), SEED)
    assert found.difference.value == pytest.approx(expected.value)
    assert found.difference.low == pytest.approx(expected.low)
    assert found.difference.high == pytest.approx(expected.high)


def test_nothing_is_said_of_what_was_not_run() -> None:
    rows = made({7: 0.2})
    assert shrinkage(rows, "ccmc-fit") is None
    (table,) = shrinkage_tables(rows)
    assert table.name == "heads.shrinkage"
    assert table.column("fit") == ["pccmc-fit"]
    assert table.column("worst head") == ["3.7"]
    assert isinstance(table.column("fit - prior there")[0], Interval)
    assert shrinkage_tables(rows[rows["surrogate"] != "pccmc-weights"]) == []
