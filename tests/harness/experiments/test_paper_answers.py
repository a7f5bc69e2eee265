"""Answers of the paper's experiments on made-up rows whose truth is known."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.core.records import Answer, Interval
from harness.core.rows import Rows
from harness.experiments._shared.claims import Claims
from harness.experiments._shared.claims_words import comparisons, furthest, verdict_answer

TRUE = Interval(1.0, 0.9, 1.2, 8)
FALSE = Interval(1.5, 1.4, 1.6, 8)
FEW = Interval(1.1, None, None, 2, "2 units: fewer than 5 cannot carry an interval")
NONE = Interval(None, None, None, 0, "no units")


def answers(kind: str, rows: pd.DataFrame) -> list[Answer]:
    module = importlib.import_module(f"harness.experiments.{kind.replace('-', '_')}.answers")
    made: list[Answer] = module.answers(rows)
    for answer in made:
        assert answer.text.endswith(".")
        assert all(len(sentence) <= 200 for sentence in answer.text.split(". ")), answer.text
    return made


def verdicts(*found: Interval) -> Answer:
    made = Claims("coverage")
    for number, one in enumerate(found):
        made.compare("m", "a claim", one, 1.0, n=number)
    return verdict_answer(comparisons(made.frame()), {"m": "the ratio"})


def test_all_as_predicted() -> None:
    answer = verdicts(*[TRUE] * 40)
    assert answer.answered
    assert "40 of 40 comparisons with the theory came out as predicted" in answer.text
    assert "about 2 of the 40 with an interval would differ by chance alone" in answer.text
    assert "20 % of the prediction (median), at most 20 %" in answer.text
    assert "Not as predicted" not in answer.text


def test_what_differs_is_named_and_counted() -> None:
    answer = verdicts(TRUE, TRUE, FALSE)
    assert answer.answered
    assert "2 of 3 comparisons" in answer.text
    assert "Not as predicted: the ratio (1 of 3)." in answer.text


def test_too_few_repetitions_are_no_answer() -> None:
    answer = verdicts(FEW, FEW, NONE)
    assert not answer.answered
    assert answer.text == (
        "None of 3 comparisons could be judged: an interval needs 5 repetitions with a value, and there are 2; no "
        "repetition has a value."
    )
    some = verdicts(TRUE, FEW)
    assert some.answered
    assert "1 of 1 comparison with the theory" in some.text
    assert "1 comparison could not be judged: an interval needs 5 repetitions" in some.text


def test_the_furthest_is_the_one_that_differs_most() -> None:
    made = Claims("coverage")
    for found, K in ((TRUE, 1), (Interval(1.5, 1.1, 2.0, 8), 2), (FALSE, 3), (FEW, 4), (NONE, 5)):
        made.compare("m", "a claim", found, 1.0, K=K)
    assert furthest(comparisons(made.frame())).factors == {"K": 3}
    without = Interval(1.3, None, None, 2, "2 units")
    made.compare("few", "a claim", FEW, 1.0, K=8)
    made.compare("few", "a claim", without, 1.0, K=9)
    assert furthest(one for one in comparisons(made.frame()) if one.metric == "few").factors == {"K": 9}
    made.bound("b", "a bound", 0.2, 0.1, 3, K=6)
    made.bound("b", "a bound", 0.3, 1.0, 3, K=7)
    assert furthest(one for one in comparisons(made.frame()) if one.metric == "b").factors == {"K": 6}


def equivalence(error: float, lost: Interval) -> pd.DataFrame:
    made = Claims("equivalence")
    for weights in ("random", "trained"):
        place: dict[str, Any] = {"K": 16, "weights": weights}
        made.compare("lost_mass", "mass lost where d < K", lost, 1.0, d=4, **place)
        made.bound("equivalence_error_eps", "model = chain", error, 128.0, 12, d=24, dtype="float64", **place)
    return made.frame()


def test_equivalence_says_how_large_the_error_is() -> None:
    said = answers("equivalence", equivalence(9.97, TRUE))
    assert [answer.answered for answer in said] == [True, True]
    assert said[0].estimate == Interval(9.97, None, None, 12)
    assert "largest error is 9.97 units of eps cond(E); the bound of 128 holds" in said[0].text
    assert "1.00 [0.90, 1.20] of the mass at d = 4" in said[0].text
    assert "4 of 4 comparisons" in said[1].text
    wrong = answers("equivalence", equivalence(1000.0, FEW))
    assert "the bound of 128 does not hold" in wrong[0].text
    assert "Not as predicted: model = chain, error / (eps cond(E)) (2 of 2)." in wrong[1].text
    assert "2 comparisons could not be judged" in wrong[1].text


def sample_complexity(*slopes: Interval) -> pd.DataFrame:
    made = Claims("sample-complexity")
    for K, found in enumerate(slopes, 4):
        made.compare("slope_in_n", "slope", found, -1.0, "ccmc-fit", family="gaussian", K=K)
        made.compare(
            "excess_risk_ratio", "ratio", Interval(1.0, 0.9, 1.1, found.n), 1.0, "ccmc-fit",
            family="gaussian", K=K, per_square=50, n_observations=50 * K * K,
        )  # fmt: skip
    return made.frame()


def test_sample_complexity_says_the_slope() -> None:
    right = answers("sample-complexity", sample_complexity(*[Interval(-1.01, -1.1, -0.9, 8)] * 3))
    assert "in n -1.01 [-1.10, -0.90] (-1.00 predicted)" in right[0].text
    assert "6 of 6" in right[1].text
    rows = sample_complexity(Interval(-1.01, -1.1, -0.9, 8), Interval(-0.5, -0.6, -0.4, 8))
    wrong = answers("sample-complexity", rows)
    assert "in n -0.500 [-0.600, -0.400], not -1.00" in wrong[0].text
    assert wrong[0].estimate == Interval(-0.5, -0.6, -0.4, 8)
    assert "Not as predicted: slope of risk in n (1 of 2)." in wrong[1].text


@pytest.mark.parametrize(
    ("kind", "metric", "factors"),
    [
        ("coverage", "excess_risk_ratio", {"design": "rare", "n": 400}),
        ("sample-complexity", "slope_in_n", {"family": "gaussian", "K": 4}),
        ("trajectory", "loser_exponent", {"a": 0.6, "b": 0.3, "T": 1000}),
        ("trajectory", "error_rate", {"p": 0.2}),
        ("winners", "odds_gap", {"family": "gaussian", "K": 5}),
        ("positions", "one_left", {"rate": 0.1, "T": 1000}),
    ],
)
def test_a_smoke_run_says_that_it_has_no_answer(kind: str, metric: str, factors: dict[str, Any]) -> None:
    for found, answered in ((FEW, False), (TRUE, True), (FALSE, True)):
        made = Claims(kind)
        made.compare(metric, "a claim", found, 1.0, **factors)
        (one,) = comparisons(made.frame())
        about = [answer for answer in answers(kind, made.frame()) if answer.estimate == one.found]
        assert about
        assert {answer.answered for answer in about} == {answered}
        if not answered:
            assert about[0].text.startswith("Not answered: an interval needs 5 repetitions with a value")


def winners(gap: float, spread: float, n: int) -> pd.DataFrame:
    made = Claims("winners")
    for t0 in (100, 1000, 10_000):
        place: dict[str, Any] = {"family": "gaussian", "K": 20, "t0": t0}
        found = Interval(gap, gap - spread, gap + spread, n) if n >= 5 else Interval(gap, None, None, n)
        made.compare("l1_over_ceiling", "gap", found, None, **place)
        for metric, value in (("jaccard", 0.8), ("jaccard_ceiling", 0.7 + t0 / 1e5)):
            made.compare(metric, metric, Interval(value, None, None, n), None, **place)
    return made.frame()


def test_winners_compares_the_mean_field_with_chance() -> None:
    made = ((-0.1, 0.05, 6), (0.1, 0.05, 6), (0.1, 0.05, 2))
    nearer, further, few = (answers("winners", winners(*one))[0] for one in made)
    assert "smaller in 3, larger in 0 of 3 settings" in nearer.text
    assert "From t0 = 1,000 (gaussian, K = 20), its winner set overlaps the path's by 0.800" in nearer.text
    assert "a second simulation's by 0.710" in nearer.text
    assert "smaller in 0, larger in 3 of 3 settings" in further.text
    assert (nearer.answered, few.answered) == (True, False)
    assert "an interval needs 5 repetitions with a value, and there are 2" in few.text


def theory_gap(repetitions: int, lead: float, noise: float = 0.01) -> pd.DataFrame:
    """Bigram explains .6 + lead of models of text beyond the tied one, ccmc-fit .6; the tied model is its chain."""
    rng = np.random.default_rng(0)
    single = Rows(experiment="theory-gap", model="one-layer", split="held_out")
    made = Claims("theory-gap")
    for rung in ("tied", "mlp", "residual"):
        for seed in range(repetitions):
            shared: dict[str, Any] = {"seed": seed, "condition": {"data": "text", "rung": rung}, "n": 20}
            explained = {"counts": 0.0, "bigram": 0.6 + lead + noise * rng.normal(), "ccmc-fit": 0.6}
            for name, value in explained.items():
                single.add("explained", 1.0 if rung == "tied" else value, surrogate=name, **shared)
                single.add("winner_jaccard", 0.3 + 0.001 * seed, surrogate=name, **shared)
            for name, value in (("model-reseeded", 0.4), ("model-shuffled", 0.2)):
                single.add("winner_jaccard", value, surrogate=name, **shared)
        made.bound("kl_weights", "chain = model", 0.0 if rung == "tied" else 0.5, 1e-10, 5, data="text", rung=rung)
    return pd.concat([single.frame(), made.frame()], ignore_index=True)


def test_theory_gap_names_the_best_surrogate_beyond_the_theory() -> None:
    few = answers("theory-gap", theory_gap(6, 0.2))[1]
    assert "The difference to ccmc-fit (+0.195 [" in few.text
    assert "rests on 6 units, too few for 2 tests (Holm)." in few.text
    stops, closest, counted = answers("theory-gap", theory_gap(8, 0.2))
    assert stops.answered
    assert "It is: KL at most 0 nats" in stops.text
    assert "0 of 2 are: KL from 0.500 to 0.500 nats" in stops.text
    assert closest.answered
    assert closest.estimate is not None
    assert closest.estimate.value == pytest.approx(0.8, abs=0.02)  # the tied model is left out
    assert closest.text.startswith("bigram explains most: 0.797 [")
    assert "The lead over ccmc-fit is 0.19" in closest.text
    assert "over 2 models and 8 repetitions" in closest.text
    assert "Ceiling, the model with another seed: 0.400" in closest.text
    assert "Tied model: 1 of 1 comparison" in counted.text
    assert "0 of 2 comparisons agree" in counted.text


def test_theory_gap_says_where_the_tied_model_is_not_its_chain() -> None:
    rows = theory_gap(6, 0.2)
    tied = rows["condition"].str.contains("tied") & (rows["metric"] == "kl_weights")
    stops, _, counted = answers("theory-gap", rows.assign(**wrong_where(rows, tied)))
    assert "It is not: KL at most 0.300 nats" in stops.text
    assert "Tied model: 0 of 1 comparison" in counted.text


def wrong_where(rows: pd.DataFrame, these: pd.Series) -> dict[str, pd.Series]:
    """Columns with a broken bound in some rows."""
    return {"value": rows["value"].mask(these, 0.3), "verdict": rows["verdict"].mask(these, "does not hold")}


def test_theory_gap_pairs_repetitions_that_both_have() -> None:
    rows = theory_gap(8, 0.2)
    gone = (
        (rows["seed"].fillna(-1) == 3) & (rows["surrogate"].fillna("") == "ccmc-fit") & (rows["metric"] == "explained")
    )
    closest = answers("theory-gap", rows.assign(value=rows["value"].mask(gone)))[1]
    assert closest.answered
    assert "The lead over ccmc-fit is 0.19" in closest.text


def test_theory_gap_finds_no_difference_where_there_is_none() -> None:
    closest = answers("theory-gap", theory_gap(6, 0.0, noise=0.05))[1]
    assert closest.answered
    assert "No difference found to bigram" in closest.text
    assert "this run could only have found one of about 0.0" in closest.text


def closure(repetitions: int, opened: float, closed: float) -> Answer:
    """Winners of ccmc-open and ccmc-fit overlap the models' so much; the ceiling is .4, the floor .2."""
    rng = np.random.default_rng(0)
    rows = theory_gap(repetitions, 0.2)
    single = Rows(experiment="theory-gap", model="one-layer", split="held_out")
    for rung in ("tied", "mlp", "residual"):
        for seed in range(repetitions):
            shared: dict[str, Any] = {"seed": seed, "condition": {"data": "text", "rung": rung}, "n": 20}
            for name, value in (("ccmc-open", opened), ("ccmc-fit", closed)):
                single.add("winner_jaccard", value + 0.01 * rng.normal(), surrogate=name, **shared)
            for name, value in (("model", 0.25), ("ccmc-open", 0.2)):
                single.add("new_tokens", value, surrogate=name, **shared)
    again = (rows["surrogate"] == "ccmc-fit").fillna(False) & (rows["metric"] == "winner_jaccard")
    return answers("theory-gap", pd.concat([rows[~again], single.frame()], ignore_index=True))[-2]


def test_theory_gap_sets_open_surrogates_beside_closed_ones() -> None:
    nearer = closure(8, 0.38, 0.25)
    assert nearer.answered
    assert nearer.estimate is not None
    assert nearer.estimate.value == pytest.approx(0.13, abs=0.02)
    assert "0.400 with another seed (ceiling), 0.200 on other prompts (floor)" in nearer.text
    assert "New tokens in rollouts: the models 0.250, ccmc-open 0.200; closed surrogates write none." in nearer.text
    assert "ccmc-open is nearer to the ceiling, by 0.1" in nearer.text
    assert "ccmc-fit is nearer to the ceiling, by 0.1" in closure(8, 0.25, 0.38).text
    assert "ccmc-fit is nearer to the ceiling, by 0.1" in closure(8, 0.60, 0.42).text  # beyond it is not near it
    assert "nearer to the ceiling, by" not in closure(8, 0.38, 0.42).text  # as far, on either side
    assert "rests on 5 units, too few for 1 test (Holm)" in closure(5, 0.38, 0.25).text
    assert not closure(2, 0.38, 0.25).answered


def test_theory_gap_with_one_repetition_has_no_answer() -> None:
    closest = answers("theory-gap", theory_gap(1, 0.2))[1]
    assert not closest.answered
    assert closest.text.startswith("Not answered: 1 unit: fewer than 5 cannot carry an interval.")
