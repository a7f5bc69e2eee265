"""Fits against what they are shrunk to: found worse where they are, and only beyond chance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.core.rows import Rows
from harness.experiments._shared.tables import summary_tables
from harness.experiments.heads.shrinkage import shrinkage


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


def test_noise_is_not_called_worse() -> None:
    found = shrinkage(made({}), "pccmc-fit", 0)
    assert found is not None
    assert found.heads == 20
    assert found.worse > 0
    assert found.significant == 0
    assert found.verdict == "holds"


def test_heads_that_are_worse_are_found_and_the_worst_is_named() -> None:
    found = shrinkage(made({4: 0.05, 7: 0.2}), "pccmc-fit", 0)
    assert found is not None
    assert found.significant == 2
    assert found.head == (3, 7)
    assert found.verdict == "does not hold"
    assert found.difference.low is not None
    assert found.difference.low > 0.15


def test_a_better_fit_holds() -> None:
    found = shrinkage(made(dict.fromkeys(range(20), -0.2)), "pccmc-fit", 0)
    assert found is not None
    assert (found.worse, found.significant) == (0, 0)


def test_nothing_is_said_of_what_was_not_run() -> None:
    rows = made({})
    assert shrinkage(rows, "ccmc-fit", 0) is None
    titles = [table.title for table in summary_tables(rows)]
    assert "Heads of m: is any fit worse than what it is shrunk to?" in titles
    without = rows[rows["surrogate"] != "pccmc-weights"]
    assert not [t for t in summary_tables(without) if "shrunk" in t.title]
