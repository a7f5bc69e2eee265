"""Tables: figures from rows by hand, and how numbers are shown."""

from __future__ import annotations

import numpy as np
import pytest

from harness.core.format import interval, number
from harness.core.records import Interval
from harness.core.rows import Rows
from harness.experiments._shared.tables import Table, summary_tables


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (float("nan"), "–"), (0.0, "0"), (1.0, "1.00"), (0.12345, "0.123"), (0.0123, "0.012"),
        (0.004687, "0.00469"), (-2.5, "-2.50"), (18.83, "18.8"), (123.4, "123"), (2.9e-15, "2.9e-15"),
        (123456.0, "1.2e+05"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_an_interval_has_the_same_decimals_throughout() -> None:
    assert interval(Interval(0.5, 0.04, 0.9, 9)) == "0.500 [0.040, 0.900]"
    assert interval(Interval(10.9, 1.43, 40.9, 9)) == "10.9 [1.4, 40.9]"
    assert interval(Interval(0.00508, 8.7e-19, 0.0263, 9), signed=True) == "+0.005 [0.000, +0.026]"
    assert interval(Interval(-0.0001, -0.2, 0.3, 9), signed=True) == "0.000 [-0.200, +0.300]"
    assert interval(Interval(0.5, None, None, 3)) == "0.500"
    assert interval(Interval(None, None, None, 0, "no units")) == "–"


def test_markdown_keeps_cells_apart() -> None:
    text = Table("T", ["a", "b"], [["x|y", "1\n2"]], "note").markdown()
    assert text == "**T**\n\n| a | b |\n| --- | ---: |\n| x\\|y | 1<br>2 |\n\nnote\n"


def test_explained_pools_over_queries_not_over_heads() -> None:
    rows = Rows(experiment="heads", model="m", strategy="greedy", split="held_out", layer=0)
    for index in range(6):
        for head, n in ((0, 10), (1, 30)):
            shared = {"prompt": f"p{index}", "head": head, "n": n}
            rows.add("kl", 1.0 + head, surrogate="counts", **shared)
            rows.add("kl", 0.5, surrogate="ccmc-fit", **shared)
    table = summary_tables(rows.frame())[0]
    found = {row[0]: row for row in table.rows}
    assert found["counts"][4] == "0 (by definition)"
    # 1 - (10 * .5 + 30 * .5) / (10 * 1 + 30 * 2), the same for every prompt: no spread, no interval
    assert found["ccmc-fit"][4] == number(1 - 20 / 70)


def test_the_verdict_of_the_excess_risk_is_that_of_its_interval() -> None:
    rng = np.random.default_rng(0)
    for centre, verdict in ((0.005, "agrees"), (0.02, "differs")):
        rows = Rows(experiment="one-layer", condition={"K": 4, "d": 4, "n": 100})
        for seed in range(10):
            value = centre + 0.001 * rng.standard_normal()
            rows.add("excess_risk", value, surrogate="model", prediction=0.005, seed=seed)
        assert summary_tables(rows.frame())[0].rows[0][-1] == verdict
