"""What an interval resamples: prompts or repetitions, never heads or layers, and a text under ten ids once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.analysis.gate import gate_rows
from harness.analysis.pivot import pivots
from harness.analysis.tolerance import Tolerance
from harness.core import registry
from harness.core.rows import Rows
from harness.runs.run import Run, load_run
from harness.runs.writing import write_parquet
from harness.stats.contest import p_of_lead
from harness.stats.pooling import CELL, NOT_DRAWN, Observed, difference

ROOT = Path(__file__).resolve().parents[3]


def rows_of_heads(prompts: int, heads: int = 9, seed: int = 0, factor: float = 1.0) -> pd.DataFrame:
    """As the experiment `heads` writes them: KL by prompt and head, and what is explained by head."""
    rng = np.random.default_rng(seed)
    made = Rows(experiment="heads", model="m", strategy="greedy", split="held_out")
    for head in range(heads):
        place: dict[str, Any] = {"layer": head // 3, "head": head % 3}
        for metric in ("kl", "kl_with_sink"):
            for prompt in range(prompts):
                whole = rng.uniform(1.0, 2.0)
                made.add(metric, whole, surrogate="counts", prompt=f"p{prompt}", n=30, **place)
                part = factor * whole * rng.uniform(0.2, 0.8)
                made.add(metric, part, surrogate="ccmc-fit", prompt=f"p{prompt}", n=30, **place)
        for metric in ("explained", "explained_with_sink"):
            made.add(metric, float(rng.uniform(0.2, 0.8)), surrogate="ccmc-fit", n=30, low=0.1, high=0.9, **place)
        made.add("content_score", float(rng.uniform()), surrogate="model", **place)
        made.add("cross_entropy", factor * float(rng.uniform()), surrogate="ccmc-fit", **place)
    return made.frame()


def pooled(rows: pd.DataFrame, metric: str, by: tuple[str, ...] = ("metric",)) -> list[Any]:
    return [sample for _, sample in Observed(rows).cells(by, metric=metric)]


@pytest.mark.parametrize("metric", ["explained", "explained_with_sink"])
def test_one_held_out_prompt_is_one_unit_however_many_heads(metric: str) -> None:
    (sample,) = pooled(rows_of_heads(1), metric)
    found = sample.interval()
    assert (found.n, found.low, found.high) == (1, None, None)
    assert found.missing == "1 unit: fewer than 5 cannot carry an interval"
    (sample,) = pooled(rows_of_heads(8), metric)
    assert sample.interval().n == 8
    assert sample.interval().low is not None
    for layer in pooled(rows_of_heads(8), metric, ("metric", "layer")):
        assert layer.interval().n == 8


def test_every_share_is_pooled_from_the_rows_that_it_is_made_of() -> None:
    for name, one in registry.measures().items():
        if name.startswith("explained"):
            assert (one.pooled, one.reference) == ("explained", "counts"), name


@pytest.mark.parametrize("metric", ["content_score", "cross_entropy"])
def test_what_is_measured_once_for_each_head_has_no_interval(metric: str) -> None:
    rows = rows_of_heads(8)
    (sample,) = pooled(rows, metric)
    own = rows.loc[rows["metric"] == metric, "value"].astype(float)
    found = sample.interval()
    assert found.value == pytest.approx(own.mean())
    assert (found.low, found.high, found.missing) == (None, None, NOT_DRAWN)
    assert p_of_lead(sample, sample, 1) == 1.0
    (other,) = pooled(rows_of_heads(8, seed=1), metric)
    apart = difference(sample, other, metric, paired=True)
    assert (apart.interval.low, apart.p, apart.direction) == (None, None, 0)
    assert apart.interval.value == pytest.approx((sample.value or 0.0) - (other.value or 0.0))


def test_shares_without_rows_of_prompts_have_no_interval_over_heads() -> None:
    rows = rows_of_heads(8)
    (sample,) = pooled(rows[~rows["metric"].str.startswith("kl")], "explained_with_sink")
    assert sample.interval().missing == NOT_DRAWN


def test_the_gate_decides_what_has_no_interval_over_heads_by_its_tolerance() -> None:
    def judged(factor: float) -> str:
        found = gate_rows(
            rows_of_heads(8, factor=factor), rows_of_heads(8), Tolerance(),
            paired_prompts=True, paired_repetitions=True, language_models=["m"],
        )  # fmt: skip
        return next(one.status for one in found if one.figure.endswith("cross_entropy") and "layer" not in one.figure)

    assert [judged(factor) for factor in (1.0, 1.001, 1.5, 0.5)] == ["ok", "ok", "worse", "ok"]


class Fake:
    """As much of a run as a pivot needs."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows, self.path = rows, Path("a")
        self.manifest: dict[str, Any] = {"models": [{"name": "m"}]}


def test_a_table_of_heads_says_that_it_has_no_intervals() -> None:
    (table,) = pivots([Fake(rows_of_heads(8))], metrics=["content_score"])
    assert "Means over 9 heads, without intervals: no head was drawn at random." in table.note
    (table,) = pivots([Fake(rows_of_heads(8))], metrics=["explained_with_sink"])
    assert "bootstrap over 8 prompts" in table.note


def with_copies(folder: Path, duplicates: dict[str, list[str]] | None) -> Run:
    """A run in which one text stands under ten ids, beside five others; the manifest says so, or does not."""
    folder.mkdir()
    manifest = json.loads((ROOT / "results" / "reference" / "quickstart" / "manifest.json").read_text(encoding="utf-8"))
    if duplicates is not None:
        manifest["prompts"]["duplicates"] = duplicates
    manifest.pop("tables")
    made = Rows(experiment="heads", model="smollm2-135m", strategy="greedy", split="held_out", layer=0, head=0)
    for index in range(15):
        value = 1.0 if index < 10 else 1.0 + 0.1 * (index - 9)
        made.add("kl", value, surrogate="counts", prompt=f"p{index}", n=10)
    write_parquet(made.frame(), folder / "rows.parquet")
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return load_run(folder)


def test_one_text_under_ten_ids_is_one_unit(tmp_path: Path) -> None:
    copies = {"p0": [f"p{index}" for index in range(1, 10)]}
    ((_, plain),) = Observed(with_copies(tmp_path / "plain", None).rows).cells(CELL)
    ((_, once),) = Observed(with_copies(tmp_path / "once", copies).rows).cells(CELL)
    assert (plain.interval().n, once.interval().n) == (15, 6)
    assert once.value == pytest.approx(np.mean([1.0, 1.1, 1.2, 1.3, 1.4, 1.5]))
    narrow, wide = plain.interval(), once.interval()
    assert (wide.high or 0.0) - (wide.low or 0.0) > (narrow.high or 0.0) - (narrow.low or 0.0)


@pytest.mark.parametrize("duplicates", [{}, {"gone": ["p1", "p2"]}, {"p0": ["never-there"]}])
def test_records_of_copies_that_have_no_rows_change_nothing(tmp_path: Path, duplicates: dict[str, list[str]]) -> None:
    rows = with_copies(tmp_path / "a", duplicates).rows
    assert rows["prompt"].nunique() == 15
