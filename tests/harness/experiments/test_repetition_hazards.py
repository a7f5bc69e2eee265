"""Forecasts of events along a text: events counted by hand, forecasts of a known law, and references without one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_repetition import repetition_rows

from harness.core.records import Interval
from harness.core.rows import Rows
from harness.core.style import context
from harness.experiments.repetition.answers import answers
from harness.experiments.repetition.figures import figures
from harness.experiments.repetition.hazard_tables import QUESTION, calibrations, hazards_table, reliability
from harness.experiments.repetition.hazards import (
    AHEAD,
    EVERY,
    PERIOD,
    FoldHazards,
    loop_forecasts,
    loop_steps,
    reused,
    step_of,
)
from harness.experiments.repetition.parts import parts
from harness.experiments.repetition.sources import BASE_RATE, BINS, POSITION, Source
from harness.experiments.repetition.tables import tables
from harness.measures.loops import find_loop, looping
from harness.surrogates.vocabulary_base import Along, Law, ScoredText, VocabularySurrogate

START = 5


def scored(tokens: np.ndarray, prompt: str, group: str = "", fold: int = 0) -> ScoredText:
    """A text whose law gives the types of the context .7, all alike, and new tokens the rest."""
    text = ScoredText(prompt, group or prompt, fold, tokens, START, {})
    known = text.known
    inside = np.where(known, 0.7 / known.sum(axis=1, keepdims=True), 0.0)
    came = text.numbered.local[START:]
    with np.errstate(divide="ignore"):
        log_next = np.where(reused(text), np.log(inside[np.arange(len(text)), came]), np.log(0.001))
    law = Law(inside, np.zeros(len(text)), log_next)
    return ScoredText(prompt, group or prompt, fold, tokens, START, {"raw": law, "decoded": law})


def drawn(number: int, length: int = 60, seed: int = 0) -> list[ScoredText]:
    """Texts of that very law: .7 of the tokens are drawn from the types of the context, others are new."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(number):
        tokens = list(range(START))
        for _ in range(length):
            tokens.append(int(rng.choice(np.unique(tokens))) if rng.random() < 0.7 else max(tokens) + 1)
        found.append(scored(np.array(tokens), f"p{index}", f"g{index // 2}"))
    return found


def test_loops_so_far_are_those_of_the_final_loop_of_every_beginning() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.integers(0, 3, 40), np.tile([1, 2, 3], 8), rng.integers(0, 2, 30), np.tile(np.arange(30), 4)]
    tokens = np.concatenate(parts)
    found = looping(tokens, PERIOD)
    for t in range(len(tokens) + 1):
        loop = None if t == 0 else find_loop(tokens[max(0, t - 3 * PERIOD) : t])
        assert found[t] == (loop is not None and loop.period <= PERIOD)
    assert 20 < found.sum() < len(tokens)
    np.testing.assert_array_equal(looping(np.stack([tokens, tokens[::-1]]), PERIOD)[0], found)
    assert not looping(np.tile(np.arange(10), 5), 9).any()


def test_events_by_hand() -> None:
    tokens = np.concatenate([np.arange(100, 105), np.arange(20), np.tile([1, 2], 20), np.arange(200, 230)])
    steps = loop_steps(tokens, START)
    assert steps.places.tolist() == list(range(START, len(tokens) - AHEAD + 1, EVERY))
    state = [find_loop(tokens[max(0, t - 96) : t]) is not None if t else False for t in range(len(tokens) + 1)]
    for place, inside, event in zip(steps.places, steps.inside, steps.events, strict=True):
        assert inside == state[place]
        coming = state[place + 1 : place + AHEAD + 1]
        assert len(coming) == AHEAD
        assert event == (not all(coming) if inside else any(coming))
    assert {(False, False), (False, True), (True, False), (True, True)} == set(
        zip(steps.inside.tolist(), steps.events.tolist(), strict=True)
    )
    text = scored(np.array([1, 2, 3, 1, 2, 2, 9, 3, 9, 8]), "p")
    assert reused(text).tolist() == [True, False, True, True, False]


def test_a_step_is_scored_as_written() -> None:
    text = scored(np.array([1, 2, 3, 1, 2, 2, 9]), "p")
    inside = np.array([[0.2, 0.5, 0.1, 0.0], [0.3, 0.3, 0.0, 0.0]])
    step = step_of(inside, np.log([0.5, 0.05]), text)
    assert step.reuse == pytest.approx([0.8, 0.6])
    assert step.nats == pytest.approx([-np.log(0.8), -np.log(0.4)])
    assert step.which == pytest.approx([(0.2 / 0.8) ** 2 + (0.5 / 0.8 - 1) ** 2 + (0.1 / 0.8) ** 2])
    closed = step_of(np.array([[1.0, 0, 0, 0], [0.25, 0.75 - 1e-16, 0, 0]]), np.array([-np.inf, -np.inf]), text)
    assert np.isinf(closed.nats[1])  # rounding is not a chance that a closed law gives
    assert closed.which == pytest.approx([2.0])


class Made(VocabularySurrogate):
    """Goes on in a loop with probability 1/4, else with tokens that are new."""

    def along(self, text: ScoredText) -> Along:
        raise AssertionError("forecasts of loops are made of rollouts alone")

    def rollout(self, prompts: Any, steps: int, seed: int, temperature: float | None = 1.0) -> np.ndarray:
        assert temperature == 1.0
        loops = np.random.default_rng(seed).random(len(prompts)) < 0.25
        period = np.tile([2, 1], steps)[:steps]
        found: np.ndarray = np.stack([period if loop else 1000 + np.arange(steps) for loop in loops])
        return found


def test_loops_are_forecast_from_rollouts_of_the_same_beginning() -> None:
    tokens = np.concatenate([np.arange(START), 50 + np.arange(27), np.tile([1, 2], 12), np.arange(80, 96)])
    steps = loop_steps(tokens, START)
    assert steps.inside.tolist() == [False] * 6 + [True]
    p = loop_forecasts(Made(), tokens, steps, 400, 3)
    outside = ~steps.inside
    fixed = np.random.default_rng(3).random(400 * len(p)).reshape(len(p), 400) < 0.25
    hits = np.where(outside, fixed.sum(axis=1), (~fixed).sum(axis=1))
    assert p == pytest.approx((hits + 0.5) / 401)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    texts = drawn(60)
    made = Rows(experiment="repetition", model="m", strategy="greedy", fold=0)
    settings = {"laws": ["decoded"], "hazard_rollouts": 4, "seed": 0, "strategy": "greedy"}
    hazards = FoldHazards(made, settings, texts, texts)
    hazards.of_model()
    for text in texts:
        law = text.laws["decoded"]
        with np.errstate(divide="ignore"):
            hazards.of_text("suffix", {"law": "decoded"}, text, Along(np.log(law.inside), law.log_next))
            off = Along(np.log(law.inside * 0.4 / 0.7), law.log_next)
        hazards.of_text("unigram", {"law": "decoded"}, text, off)
    hazards.of_surrogate("suffix", {"law": "decoded"}, Made())
    hazards.of_surrogate("unigram", {"law": "decoded"}, Made())
    return made.frame()


def test_only_rungs_that_are_named_forecast_loops() -> None:
    texts = drawn(4)
    settings = {"laws": ["decoded"], "hazard_rollouts": 4, "seed": 0, "strategy": "greedy", "hazard_rungs": ["recency"]}
    made = Rows(experiment="repetition", model="m", strategy="greedy", fold=0)
    hazards = FoldHazards(made, settings, texts, texts)
    hazards.of_surrogate("suffix", {"law": "decoded"}, Made())
    for rung in ("counts", "recency"):
        hazards.of_surrogate("context-logit", {"law": "decoded", "rung": rung}, Made())
    found = made.frame()
    assert set(found.loc[found["metric"] == "brier_loop", "surrogate"]) == {"suffix", "context-logit"}
    rungs = found.loc[found["surrogate"] == "context-logit", "condition"]
    assert len(rungs)
    assert all("recency" in condition for condition in rungs)


def of(rows: pd.DataFrame, metric: str, surrogate: str) -> pd.Series:
    found: pd.Series = rows[(rows["metric"] == metric) & (rows["surrogate"] == surrogate)]["value"].astype(float)
    return found


def test_rows_of_every_event(rows: pd.DataFrame) -> None:
    for metric in ("brier_reuse", "log_reuse", "brier_which"):
        assert len(of(rows, metric, "suffix")) == 60
        pd.testing.assert_series_equal(
            of(rows, metric, "suffix"), of(rows, metric, "model"), check_index=False, check_names=False
        )
    assert of(rows, "brier_reuse", "suffix").mean() == pytest.approx(0.21, abs=0.01)
    assert of(rows, "brier_reuse", "unigram").mean() > 0.28
    assert set(rows[rows["metric"] == "brier_loop"]["surrogate"]) == {"suffix", BASE_RATE, POSITION}
    assert of(rows, "brier_loop", BASE_RATE).max() < 0.01  # no loop in these texts
    assert rows[rows["metric"] == "brier_leave"]["missing"].eq("no step inside a loop").all()
    assert of(rows, "brier_which", POSITION).empty


def test_a_base_rate_is_that_of_the_texts(rows: pd.DataFrame) -> None:
    share = np.mean([reused(text).mean() for text in drawn(60)])
    assert of(rows, "brier_reuse", BASE_RATE).mean() == pytest.approx(share * (1 - share), abs=1e-6)
    assert of(rows, "brier_reuse", POSITION).mean() <= of(rows, "brier_reuse", BASE_RATE).mean() + 1e-6


def test_bins_hold_every_step(rows: pd.DataFrame) -> None:
    bins = rows[rows["metric"] == "calibration_event"]
    assert bins.groupby(["surrogate", "condition"])["n"].sum().groupby("surrogate").sum().eq(60 * 60).all()
    for name, low, high in (("suffix", 0.0, 0.03), ("unigram", 0.25, 0.35)):
        n, forecast, event = calibrations(rows)["m", "greedy", Source(name, "decoded")].sum(axis=0)
        gaps = np.abs(forecast - event)[n > 0] / n[n > 0]
        assert low <= gaps.min() <= gaps.max() < high


def as_rung(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows with one surrogate as the only rung of the ladder."""
    made = rows.copy()
    own = made["surrogate"] == name
    made.loc[own, "surrogate"] = "context-logit"
    made.loc[own, "condition"] = [
        json.dumps({**json.loads(text or "{}"), "law": "decoded", "rung": "counts"})
        for text in made.loc[own, "condition"].astype(object).where(made.loc[own, "condition"].notna(), None)
    ]
    return made


def cells(rows: pd.DataFrame, event: str = "re-use") -> dict[str, dict[str, Any]]:
    """Source -> its line of one event."""
    table = hazards_table(parts(rows), calibrations(rows))
    names = [column.name for column in table.columns]
    lines = [dict(zip(names, row, strict=True)) for row in table.rows]
    return {line["source"]: line for line in lines if line["event"] == event}


def test_the_reliability_of_a_calibrated_law_is_near_zero(rows: pd.DataFrame) -> None:
    sums = calibrations(rows)
    right, wrong = (sums["m", "greedy", Source(name, "decoded")] for name in ("suffix", "unigram"))
    assert right.shape == (30, 3, BINS)  # groups of two
    assert right[:, 0].sum() == 60 * 60
    near, far = reliability(right), reliability(wrong)
    assert near is not None
    assert far is not None
    assert near.value == pytest.approx(0.0, abs=0.001)
    assert far.value == pytest.approx(0.09, abs=0.01)
    assert far.low is not None
    assert far.high is not None
    assert 0.07 < far.low < far.value < far.high < 0.11
    made = cells(rows)
    assert made["suffix"]["reliability"] == reliability(right)
    assert {"model", "suffix", "unigram", BASE_RATE, POSITION} == set(made)
    brier = made["unigram"]["Brier"]
    assert isinstance(brier, Interval)
    assert (brier.n, brier.low is not None) == (30, True)  # groups of two
    assert made["unigram"]["over base rate"].value < -0.3


def test_the_skill_of_a_base_rate_over_itself_is_zero(rows: pd.DataFrame) -> None:
    copy = as_rung(rows[rows["surrogate"] == BASE_RATE], BASE_RATE)
    made = cells(pd.concat([rows, copy], ignore_index=True))
    assert made["counts"]["over base rate"].value == pytest.approx(0.0, abs=1e-12)
    assert made[BASE_RATE]["over base rate"] is None
    assert cells(rows, "which token")["suffix"]["over base rate"].value == pytest.approx(0.0, abs=1e-12)


def test_an_infinite_log_score_is_never_averaged(rows: pd.DataFrame) -> None:
    made = rows.copy()
    one = made.index[(made["metric"] == "log_reuse") & (made["surrogate"] == "suffix")][0]
    made.loc[one, ["value", "missing"]] = [pd.NA, "infinite: 1 of 60 steps had probability 0"]
    assert cells(made)["suffix"]["log score"] == "infinite"
    assert isinstance(cells(made)["model"]["log score"], Interval)


@pytest.mark.parametrize(("name", "said"), [("suffix", "greedy: yes. "), ("unigram", "greedy: no. ")])
def test_the_answer_says_whether_forecasts_are_calibrated(rows: pd.DataFrame, name: str, said: str) -> None:
    made = as_rung(rows, name)
    (answer,) = [one for one in answers(made) if one.question == QUESTION]
    assert said in answer.text
    assert "Brier skill over a model of position alone" in answer.text


def test_table_and_figure_are_there_only_with_forecasts(rows: pd.DataFrame) -> None:
    made = as_rung(rows, "suffix")
    assert "repetition.hazards" in {table.name for table in tables(made)}
    (figure,) = [one for one in figures(made, pd.DataFrame()) if one.name.startswith("calibration")]
    with context():
        drawn = figure.draw()
        assert drawn.axes[0].get_ylabel() == "share re-used"
    before = repetition_rows()
    assert "repetition.hazards" not in {table.name for table in tables(before)}
    assert not any(answer.question == QUESTION for answer in answers(before))
    assert not any(one.name.startswith("calibration") for one in figures(before, pd.DataFrame()))
