"""How many prompts and seeds find a difference: variances that are known, and those of a reference run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import nct, t

from harness.analysis.power import MOST, Power, answers, effects_of, power_of, powers
from harness.core.errors import UsageError
from harness.core.rows import Rows
from harness.runs.run import Run, load_run

ROOT = Path(__file__).resolve().parents[3]
BETWEEN, OWN, MODELS = 0.3, 0.1, 0.2  # standard deviations of a prompt's difference, and of the seeds of each side


class Fake:
    """As much of a run as its power needs."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows


def made(prompts: int, seeds: int = 4, strategy: str = "temperature=1", size: int = 1) -> Rows:
    """Rows of two surrogates with variances that are known exactly, prompts in groups of a size."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=prompts)

    def exact(values: np.ndarray, sd: float) -> np.ndarray:
        offset: np.ndarray = values - values.mean(axis=-1, keepdims=True)
        return offset / values.std(axis=-1, ddof=1, keepdims=True) * sd

    per_group = prompts // size
    shift = np.repeat(exact(rng.normal(size=per_group), BETWEEN), size)
    own = exact(rng.normal(size=(prompts, seeds)), OWN) if seeds > 1 else np.zeros((prompts, 1))
    model = exact(rng.normal(size=(prompts, seeds)), MODELS) if seeds > 1 else np.zeros((prompts, 1))
    rows = Rows(experiment="generation", model="m", strategy=strategy, split="held_out")
    for prompt in range(prompts):
        named = {"prompt": f"p{prompt}", "group": f"g{prompt // size}" if size > 1 else None}
        for seed in range(seeds):
            real = float(base[prompt] + model[prompt, seed])
            who = {"surrogate": "model"} if seed == 0 else {"surrogate": "model-reseeded"}
            rows.add("length", real, seed=seed, **named, **who)
            for name in ("ccmc-fit", "counts"):
                value = float(base[prompt] + shift[prompt] + own[prompt, seed])
                rows.add("length", value, seed=seed, surrogate=name, **named)
    return rows


def power_by_t(spread: float, prompts: int, effect: float) -> float:
    """The power of a paired t test, from the textbook."""
    edge = t.ppf(0.975, prompts - 1)
    return float(nct.sf(edge, prompts - 1, effect / spread * math.sqrt(prompts)))


def test_known_variances_give_the_textbooks_sizes() -> None:
    found = {one.surrogate: one for one in powers(Fake(made(100).frame()), {"length": 0.1})}
    assert list(found) == ["counts", "ccmc-fit"]  # in the order of the ladder
    one = found["counts"]
    noise = OWN**2 + MODELS**2
    assert one.within == pytest.approx(math.sqrt(noise))
    # means of 4 seeds have no noise here, so their expected part is taken off what was drawn without it
    assert one.between == pytest.approx(math.sqrt(BETWEEN**2 - noise / 4))
    assert (one.prompts, one.seeds) == (100, (4, 4))
    assert one.needed is not None
    for seeds, prompts in one.needed.items():
        spread = math.sqrt(BETWEEN**2 - noise / 4 + noise / seeds)
        assert power_by_t(spread, prompts, 0.1) >= 0.8 > power_by_t(spread, prompts - 1, 0.1)
    assert list(one.needed) == [1, 2, 4, 8]
    assert power_by_t(BETWEEN, 100, one.found or 0) == pytest.approx(0.8, abs=0.001)


def test_prompts_of_a_group_count_less() -> None:
    alone, grouped = (powers(Fake(made(60, size=size).frame()), {"length": 0.1})[0] for size in (1, 3))
    assert alone.needed is not None
    assert grouped.needed is not None
    assert grouped.needed[8] > 2.5 * alone.needed[8]  # three prompts with one shift are little more than one
    assert (grouped.found or 0) > 1.5 * (alone.found or 0)


def test_one_seed_of_each_side_predicts_no_more_seeds_unless_nothing_is_sampled() -> None:
    sampled, greedy = (
        powers(Fake(made(40, 1, strategy).frame()), {"length": 0.1})[0] for strategy in ("temperature=1", "greedy")
    )
    assert sampled.within is None
    assert list(sampled.needed or ()) == [1]
    assert greedy.within == 0
    assert len(set((greedy.needed or {}).values())) == 1
    assert list(greedy.needed or ()) == [1, 2, 4, 8]
    assert greedy.between == sampled.between == pytest.approx(BETWEEN)


def test_only_what_was_judged_on_both_sides_counts() -> None:
    rows = made(20)
    rows.add("length", 1e6, prompt="trained", surrogate="counts", seed=0, split="train")
    rows.add("length", 1e6, prompt="trained", surrogate="model", seed=0, split="train")
    rows.add("length", 1e6, prompt="alone", surrogate="counts", seed=0)
    rows.add("length", None, missing="too short", prompt="p0", surrogate="counts", seed=9)
    plain, more = (powers(Fake(frame), {"length": 0.1})[0] for frame in (made(20).frame(), rows.frame()))
    assert (more.between, more.found, more.prompts) == (plain.between, plain.found, 20)
    assert (plain.left_out, more.left_out) == (0, 1)
    table = power_of(Fake(rows.frame()), {"length": 0.1})
    assert "1 value is missing" in table.caption


def test_few_prompts_have_no_estimate_and_the_reason_is_told() -> None:
    run = Fake(made(2).frame())
    table = power_of(run, {"length": 0.1})
    assert set(table.column("findable")) == set(table.column("prompts at 1 seed")) == {None}
    assert "at least 3" in table.caption
    (answer,) = answers(powers(run, {"length": 0.1}))
    assert not answer.answered
    assert "at least 3" in answer.text


@pytest.fixture(scope="module")
def smollm2() -> Run:
    return load_run(str(ROOT / "results/reference/generation/smollm2"))


def of_strategy(found: Iterable[Power], strategy: str) -> list[Power]:
    return [one for one in found if one.strategy == strategy]


def test_agreement_of_greedy_text_takes_hundreds_of_prompts(smollm2: Run) -> None:
    found = powers(smollm2, {"seq_rep_4": 0.05}, strategies=["greedy", "temperature=0.7"], equivalence=True)
    greedy = of_strategy(found, "greedy")
    assert len(greedy) == 9
    for one in greedy:
        assert 0.35 <= (one.between or 0) <= 0.40
        assert one.within == 0
        assert one.needed is not None
        assert 420 <= one.needed[1] == one.needed[8] <= 520
        assert 0.25 < (one.found or 0) < 0.30
    sampled = of_strategy(found, "temperature=0.7")
    assert all((one.within or 0) > 0.05 and one.seeds == (3, 2) for one in sampled)
    assert all(one.needed is not None and one.needed[8] < one.needed[1] for one in sampled)
    (answer,) = answers(found, equivalence=True)
    assert "agreement within 0.05 in seq_rep_4" in answer.text
    assert "none of 18 comparisons" in answer.text


def test_the_least_difference_is_the_one_that_its_interval_shows(smollm2: Run) -> None:
    rows = smollm2.rows
    part = rows[(rows["metric"] == "seq_rep_4") & (rows["strategy"] == "greedy") & (rows["split"] == "held_out")]
    side = {name: part[part["surrogate"] == name].set_index("prompt")["value"] for name in ("counts", "model")}
    difference = (side["counts"].astype(float) - side["model"].astype(float)).dropna()
    (one,) = powers(smollm2, {"seq_rep_4": 0.05}, strategies=["greedy"], surrogates=["counts"])
    assert one.prompts == len(difference)
    assert one.between == pytest.approx(difference.std())
    assert power_by_t(float(difference.std()), len(difference), one.found or 0) == pytest.approx(0.8, abs=0.001)


def test_prompts_of_one_repetition_are_no_units() -> None:
    rows = Rows(experiment="one-layer", model="m", split="held_out")
    for seed in range(6):
        for prompt in range(4):
            for surrogate in ("model", "counts"):
                rows.add("length", seed + prompt, prompt=f"{seed}-{prompt}", seed=seed, surrogate=surrogate)
    with pytest.raises(UsageError, match="no rows per prompt"):
        powers(Fake(rows.frame()), {"length": 0.1})


def test_conditions_are_told_apart_and_shown_as_they_are_written_in_tables() -> None:
    rows = made(20)
    for prompt in range(20):
        rows.add("length", float(prompt), prompt=f"p{prompt}", seed=0, surrogate="counts", condition={"t0": 16})
    table = power_of(Fake(rows.frame()), {"length": 0.1})
    shown = list(zip(table.column("condition"), table.column("surrogate"), strict=True))
    assert shown == [(None, "counts"), (None, "ccmc-fit"), ("t0 = 16", "counts")]


def test_the_model_has_the_same_start_as_its_surrogates() -> None:
    rows = Rows(experiment="repetition", model="m", strategy="greedy", split="held_out")
    rng = np.random.default_rng(0)
    for prompt, (near, far) in enumerate(rng.normal(size=(12, 2))):
        named = {"prompt": f"p{prompt}", "seed": 0}
        starts: tuple[tuple[dict[str, int], float], ...] = (({}, near), ({"t0": 16}, far))
        for start, real in starts:
            rows.add("length", float(real), surrogate="model", condition=start or None, **named)
            own = {"law": "decoded", "rung": "counts", **start}
            rows.add("length", float(real) + 0.1 * (prompt % 3), surrogate="counts", condition=own, **named)
    early, late = powers(Fake(rows.frame()), {"length": 0.1})
    spread = float(np.std([0.1 * (prompt % 3) for prompt in range(12)], ddof=1))
    assert early.between == pytest.approx(spread)
    assert late.between == pytest.approx(spread)


def test_several_effects_are_one_table_and_names_are_checked(smollm2: Run) -> None:
    table = power_of(smollm2, {"seq_rep_4": 0.05, "loop_share": 0.1}, ["smollm2-135m"], ["greedy"], ["counts"])
    assert table.column("metric") == ["seq_rep_4", "loop_share"]
    assert table.name == "power"
    for place, wrong, near in ((0, "smollm2", "smollm2-135m"), (1, "gredy", "greedy"), (2, "count", "counts")):
        names = [[wrong] if index == place else [] for index in range(3)]
        with pytest.raises(UsageError, match=f"did you mean '{near}'"):
            powers(smollm2, {"seq_rep_4": 0.05}, *names)


def test_an_effect_that_nobody_can_find_is_not_counted_out() -> None:
    (one, *_) = powers(Fake(made(20).frame()), {"length": 1e-300})
    assert one.needed is not None
    assert set(one.needed.values()) == {MOST + 1}
    assert "more than 10^9 prompts" in answers([one])[0].text


def test_effects_are_read_from_texts() -> None:
    assert effects_of(["seq_rep_4=.05", " length = 1e2 "]) == {"seq_rep_4": 0.05, "length": 100.0}
    for text in ("seq_rep_4", "=.05", "seq_rep_4=", "seq_rep_4=five", "seq_rep_4=1,5"):
        with pytest.raises(UsageError, match="--effect"):
            effects_of([text])
    with pytest.raises(UsageError, match="twice"):
        effects_of(["a=1", "a=2"])
