"""Noise has no leader: what tables, answers and comparisons call best or better holds its level."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.analysis.compare import Line, better
from harness.analysis.pivot import pivots
from harness.core.rows import Rows
from harness.experiments.heads.answers import MOST, WORSE, answers
from harness.experiments.heads.tables import tables
from harness.report.render import render
from harness.stats.contest import beyond_chance, p_of_lead
from harness.stats.differences import Pooled
from harness.stats.pooling import Sample, difference
from harness.stats.significance import holm


class Fake:
    """As much of a run as a pivot needs."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows, self.path = rows, Path("a")
        self.manifest = {
            "state": "complete",
            "config": {"seed": 0, "experiments": [{"kind": "heads"}], "generation": {}},
            "models": [{"name": "m", "weights_sha256": "w", "revision": None}],
            "prompts": {"sha256": "p"},
            "packages": {},
            "machine": {},
            "git": {"commit": "c", "dirty": False},
        }


NAMES = ("distance", "ccmc-weights", "pccmc-weights", "ccmc-fit")


def noise(seed: int, n: int, layers: int = 1, shift: float = 0.0) -> pd.DataFrame:
    """KL of four surrogates that differ by noise alone, each prompt with a level of its own; `distance` by `shift`."""
    rng = np.random.default_rng(seed)
    made = Rows(experiment="heads", model="m", strategy="greedy", split="held_out", head=0)
    for prompt in range(n):
        level = rng.uniform(0.5, 2.0)
        for layer in range(layers):
            shared = {"prompt": f"p{prompt}", "n": 20, "layer": layer}
            made.add("kl", level * 2, surrogate="counts", **shared)
            for name in NAMES:
                off = shift if name == "distance" else 0.0
                made.add("kl", level * (1 + 0.3 * rng.normal() * (name != "counts")) - off, surrogate=name, **shared)
    return made.frame()


@pytest.mark.parametrize(("n", "layers"), [(5, 1), (6, 1), (8, 4), (12, 4), (24, 1)])
def test_a_table_of_noise_has_no_bold(n: int, layers: int) -> None:
    tries, wrong = 60, 0
    for seed in range(tries):
        rows = noise(seed, n, layers)
        by = ["surrogate"] if layers == 1 else ["surrogate", "layer"]
        (found,) = pivots([Fake(rows[rows["surrogate"] != "counts"])], rows=by, metrics=["kl"])
        wrong += any(cell.best for cell in found.cells.values())
    assert wrong <= 6  # at most 5 % of tables: more than 6 of 60 happen once in 60
    if n == 5:
        assert wrong == 0  # 1/16 is the smallest p-value of 5 pairs


@pytest.mark.parametrize("format_", ["markdown", "latex", "html"])
def test_no_format_marks_noise_and_all_mark_a_lead(format_: str) -> None:
    mark = {"markdown": "**", "latex": "textbf", "html": "<b>"}[format_]
    for shift, there in ((0.0, False), (1.5, True)):
        rows = noise(3, 12, shift=shift)
        (found,) = pivots([Fake(rows[rows["surrogate"] != "counts"])], rows=["surrogate"], metrics=["kl"])
        shown = render([found.wide()], format_)
        body = shown.replace("**heads: kl**", "").replace("\\textbf{heads: kl}", "")
        assert (mark in body) == there, shown


@pytest.mark.parametrize("n", [6, 12])
def test_answers_and_headline_call_nothing_better_or_worse_in_noise(n: int) -> None:
    tries, leads, marks, worse = 24, 0, 0, 0
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        made = Rows(experiment="heads", model="m", strategy="greedy", split="held_out", head=0, layer=0)
        for prompt in range(n):
            level = rng.uniform(0.5, 2.0)
            for name in ("counts", *NAMES):
                value = level * (1 + 0.2 * rng.normal() * (name != "counts"))
                made.add("kl", value, surrogate=name, prompt=f"p{prompt}", n=20)
                made.add("top_token", 0.5, surrogate=name, prompt=f"p{prompt}", n=20)
        for name in NAMES:
            made.add("explained", 0.0, surrogate=name, n=20 * n)
        rows = made.frame()
        said = {answer.question: answer.text for answer in answers(rows)}
        assert "could not be answered" not in said[WORSE]
        leads += "the runner-up." in said[MOST]
        worse += "no surrogate is worse than counting" not in said[WORSE]
        marks += bool(tables(rows)[0].marked)
    assert leads <= 3
    assert worse <= 3
    assert marks <= 3


@pytest.mark.parametrize("n", [5, 6, 10])
def test_a_comparison_calls_a_side_better_only_where_holm_does(n: int) -> None:
    """Twelve figures of noise a comparison: a family that often has an uncorrected p below .05."""
    tries, wrong, uncorrected = 30, 0, 0
    for seed in range(tries):
        rng = np.random.default_rng([n, seed])
        lines = []
        for figure in range(12):
            values = rng.uniform(1.0, 2.0, n)
            units = pd.Index([f"p{i}" for i in range(n)])
            a, b = (Pooled(values + rng.normal(0.0, 0.2, n), np.ones(n)) for _ in range(2))
            x, y = (Sample(units, one, False, n, 0, None) for one in (a, b))
            made = difference(x, y, "kl", paired=True)
            lines.append(Line("heads", f"s{figure}", "kl", x.interval(), y.interval(), made))
        p_values = [line.difference.p or 1.0 for line in lines]
        lines = [replace(one, corrected=float(p)) for one, p in zip(lines, holm(p_values), strict=True)]
        said = [better(line) is not None for line in lines]
        assert all(not word or (line.corrected or 1.0) <= 0.05 for word, line in zip(said, lines, strict=True))
        wrong += any(said)
        uncorrected += any(line.difference.direction for line in lines)
    assert wrong <= 4
    assert uncorrected > wrong  # the intervals alone would have called some better


def test_ranks_of_runs_that_differ_by_noise_are_shared() -> None:
    wrong, tries = 0, 30
    for seed in range(tries):
        rng = np.random.default_rng(seed)
        level, units = rng.uniform(1.0, 2.0, 8), pd.Index([f"p{i}" for i in range(8)])
        samples = [
            Sample(units, Pooled(level + rng.normal(0, 0.2, 8), np.ones(8)), False, 8, 0, None) for _ in range(5)
        ]
        samples.sort(key=lambda one: one.value or 0.0)
        tests = [p_of_lead(samples[i], samples[j], -1) for j in range(5) for i in range(j)]
        wrong += any(beyond_chance(tests))
    assert wrong <= 4
