"""The distance of laws over prompts: none for the same law, whoever drew; one where a law repeats more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from harness.core.rows import RESEEDED, Rows
from harness.experiments.repetition.law_table import distance_of, draws_of, how_much_table
from harness.experiments.repetition.parts import FIXED, parts
from harness.experiments.repetition.vectors import FIGURES

PROMPTS, SEEDS = 40, 4
OTHER_SEEDS = FIXED[RESEEDED]
Law = Callable[[np.random.Generator, int], np.ndarray]


def rows_of(laws: dict[str, Law], seeds: int = SEEDS) -> pd.DataFrame:
    """Figures of the model and of surrogates; prompts in groups of two.

    Args:
        laws: name -> (random numbers, prompt) -> figures.
        seeds: of the model and of every surrogate.
    """
    rows = Rows(experiment="repetition", model="m", strategy="temperature=1", split="held_out")
    rng = np.random.default_rng(3)
    for name, law in laws.items():
        condition = None if name == "model" else {"law": "decoded"}
        for prompt in range(PROMPTS):
            where = {"prompt": f"p{prompt:02}", "group": f"g{prompt // 2:02}", "fold": prompt % 5}
            for seed in range(seeds):
                for metric, value in zip(FIGURES, law(rng, prompt), strict=True):
                    rows.add(metric, float(value), surrogate=name, condition=condition, seed=seed, n=1, **where)
            for metric, value in (("energy_score", 0.1 * prompt), ("new_share", 0.2)):
                rows.add(metric, value, surrogate=name, condition=condition, **where)
    return rows.frame()


def by_prompt(rng: np.random.Generator, prompt: int) -> np.ndarray:
    """Prompts differ much, seeds of a prompt little."""
    return np.full(len(FIGURES), prompt / PROMPTS) + 0.01 * rng.standard_normal(len(FIGURES))


def shuffled(rng: np.random.Generator, prompt: int) -> np.ndarray:
    """The same law over prompts, each time with the figures of any."""
    return by_prompt(rng, int(rng.integers(PROMPTS)))


def more(rng: np.random.Generator, prompt: int) -> np.ndarray:
    return by_prompt(rng, prompt) + 0.5


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return rows_of({"model": by_prompt, "suffix": shuffled, "unigram": more})


def lines(rows: pd.DataFrame) -> dict[str, dict[str, object]]:
    table = how_much_table(rows, parts(rows))
    names = [column.name for column in table.columns]
    return {str(line["walks of"]): line for line in (dict(zip(names, row, strict=True)) for row in table.rows)}


def test_which_prompt_it_is_counts_for_nothing(rows: pd.DataFrame) -> None:
    made = lines(rows)
    assert made["suffix"]["verdict"] == "no difference found"
    assert abs(float(str(made["suffix"]["distance"]))) < 0.2
    assert made["unigram"]["verdict"] == "differs"
    assert float(str(made["unigram"]["distance"])) > 0.5
    assert made["unigram"]["prompts"] == PROMPTS


def test_the_models_seeds_are_one_law(rows: pd.DataFrame) -> None:
    own = lines(rows)[OTHER_SEEDS]
    assert own["verdict"] == "no difference found"
    assert float(str(own["p"])) > 0.05


def test_the_distance_is_that_of_all_pairs_of_prompts(rows: pd.DataFrame) -> None:
    part = parts(rows)[0]
    drawn = draws_of(rows, part)
    model = next(values for one, values in drawn.items() if one.name == "model")
    source = next(one for one in drawn if one.name == "unigram")
    scale = model.values.std(axis=0)
    x, y = (drawn[one].values.reshape(PROMPTS, SEEDS, -1) / scale for one in (source, part.fixed("model")))
    group = np.arange(PROMPTS) // 2
    total, pairs = 0.0, 0
    for i in range(PROMPTS):
        for j in range(PROMPTS):
            if group[i] != group[j]:
                means = [
                    np.mean([np.linalg.norm(a - b) for a in left for b in right])
                    for left, right in ((x[i], y[j]), (x[j], y[i]), (x[i], x[j]), (y[i], y[j]))
                ]
                total += means[0] + means[1] - means[2] - means[3]
                pairs += 1
    found = distance_of(drawn, source)
    assert found is not None
    assert found.value == pytest.approx(total / pairs, rel=1e-9)


def test_without_pairs_there_is_no_distance() -> None:
    rows = rows_of({"model": by_prompt, "suffix": shuffled}, seeds=1)
    few = rows[rows["group"] == "g00"]
    assert distance_of(draws_of(few, parts(few)[0]), parts(few)[0].sources("seq_rep_4")[0]) is None
