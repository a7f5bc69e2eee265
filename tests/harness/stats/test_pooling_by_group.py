"""Figures of prompts in groups: means over prompts, with intervals and tests over groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.core.rows import Rows
from harness.stats.contest import p_of_lead
from harness.stats.differences import Pooled, paired_p
from harness.stats.intervals import ratio_interval
from harness.stats.pooling import Observed, Sample, difference
from harness.stats.power import components

SIZES = (1, 3, 2, 1, 3, 1, 2, 1)  # prompts of each group


def made(surrogate: str = "fit", shift: float = 0.0, grouped: bool = True, seeds: int = 2) -> pd.DataFrame:
    """One figure of prompts that resemble the others of their group, with `seeds` rows each."""
    rng = np.random.default_rng(1)
    rows = Rows(experiment="generation", model="m", strategy="greedy", split="held_out", surrogate=surrogate)
    for number, size in enumerate(SIZES):
        centre = rng.normal()
        for index in range(size):
            group = f"g{number}" if grouped and size > 1 else None
            for seed in range(seeds):
                value = centre + rng.normal(0, 0.1) + shift * (1 + 0.1 * rng.normal())
                rows.add("kl", value, prompt=f"p{number}-{index}", group=group, seed=seed, fold=number % 5, n=10)
    return rows.frame()


def figure(rows: pd.DataFrame) -> Sample:
    ((_, sample),) = Observed(rows).cells(("metric",))
    return sample


def sums_of_groups(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Sums and sizes of the groups, made by hand, in the order of their names."""
    named = rows.assign(value=rows["value"].astype(float), group=rows["group"].fillna(rows["prompt"]))
    prompts = named.groupby(["group", "prompt"])["value"].mean()
    return prompts.groupby("group").sum().to_numpy(), prompts.groupby("group").size().to_numpy(dtype=float)


def test_the_mean_is_over_prompts_and_the_interval_over_groups() -> None:
    rows = made()
    alone, together = figure(made(grouped=False)).interval(), figure(rows).interval()
    above, below = sums_of_groups(rows)
    assert together.value == pytest.approx(alone.value, rel=1e-12)
    assert (alone.n, together.n) == (sum(SIZES), len(SIZES))
    by_hand = ratio_interval(above, below, seed=0)
    assert (together.low, together.high) == pytest.approx((by_hand.low, by_hand.high), rel=1e-9)
    assert together.high - together.low > 1.1 * (alone.high - alone.low)  # type: ignore[operator]


def test_rows_without_groups_are_pooled_as_before() -> None:
    rows = made(grouped=False)
    of_now, of_older = figure(rows), figure(rows.drop(columns=["group", "fold"]))
    assert of_now.groups is None
    assert of_now.interval() == of_older.interval()


def test_a_prompt_without_a_group_is_one_of_its_own() -> None:
    groups = figure(made()).groups
    assert groups is not None
    assert sorted(set(groups)) == sorted(f"g{i}" if size > 1 else f"p{i}-0" for i, size in enumerate(SIZES))


@pytest.mark.parametrize("paired", [True, False])
def test_differences_are_tested_over_groups(paired: bool) -> None:
    found: dict[bool, Any] = {}
    for grouped in (True, False):
        a, b = (figure(made(name, shift, grouped)) for name, shift in (("fit", 0.3), ("counts", 0.0)))
        found[grouped] = difference(a, b, "kl", paired)
    assert found[True].interval.value == pytest.approx(found[False].interval.value, rel=1e-12)
    assert (found[True].interval.n, found[False].interval.n) == (len(SIZES), sum(SIZES))
    assert found[True].spread.freedom < found[False].spread.freedom
    assert found[True].p > found[False].p


def test_pairs_are_the_prompts_that_both_sides_have() -> None:
    """Of a group, prompts that only one side has are left out."""
    a, b = made("fit", 0.3), made("counts")
    few = b[~b["prompt"].isin(["p1-0", "p4-2", "p0-0"])]
    found = difference(figure(a), figure(few), "kl", paired=True)
    by_hand = difference(figure(a[a["prompt"].isin(few["prompt"])]), figure(few), "kl", paired=True)
    assert found.interval == by_hand.interval
    assert len(found.units) == sum(SIZES) - 3
    assert found.interval.n == len(SIZES) - 1


def test_a_lead_is_tested_over_groups() -> None:
    best, other = (figure(made(name, shift)) for name, shift in (("fit", 0.0), ("counts", 0.3)))
    one, two = (Pooled(*sums_of_groups(made(shift=shift))) for shift in (0.0, 0.3))
    assert p_of_lead(best, other, sign=-1) == pytest.approx(paired_p(one, two, 0), rel=1e-9)
    assert p_of_lead(best, other, sign=-1) >= 2 ** (1 - len(SIZES))


def test_variance_components_take_rows_with_and_without_groups() -> None:
    mixed = made()
    named = mixed.assign(group=mixed["group"].fillna(mixed["prompt"]))
    assert components(mixed) == components(named)
    assert components(mixed).groups > 0
    assert components(made(grouped=False)) == components(mixed.drop(columns="group"))
