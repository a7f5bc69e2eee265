"""Tables, answers and figures of the one-layer model, on made-up rows with known truth."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.core.records import Answer, Interval, Table
from harness.core.rows import Rows
from harness.core.style import context
from harness.experiments.one_layer.answers import RISK, SAME, TRAINED, WINS, answers
from harness.experiments.one_layer.figures import figures
from harness.experiments.one_layer.tables import tables
from harness.report.render.layout import layout, plain

N = 100
PREDICTED = 4 * 3 / (2 * N)
OVERLAPS = {"ccmc-weights": 0.6, "ccmc-fit": 0.6, "model-reseeded": 0.6, "model-shuffled": 0.2}


def made(
    ratio: float = 1.0,
    repetitions: int = 12,
    error: float = 1e-15,
    K: int = 4,
    claim: str = "holds",
    overlaps: dict[str, float] = OVERLAPS,
) -> pd.DataFrame:
    """Rows of repetitions whose excess risks are `ratio` times what theory says, give or take noise."""
    rng = np.random.default_rng(0)
    condition = {"K": K, "d": 8, "n": N, "prompt_length": 5}
    rows = Rows(experiment="one-layer", model="one-layer", condition=condition, split="held_out")
    for seed in range(repetitions):
        for name, times in (("model", 1), ("ccmc-weights", 1), ("ccmc-fit", 2)):
            value = times * PREDICTED * ratio * (1 + 0.1 * rng.normal())
            rows.add("excess_risk", value, surrogate=name, prediction=times * PREDICTED, seed=seed)
        value = PREDICTED * (1 + 0.1 * rng.normal())
        rows.add("excess_risk_over_model", value, surrogate="ccmc-fit", prediction=PREDICTED, seed=seed)
        rows.add("equivalence_error", error, surrogate="ccmc-weights", prediction=0.0, verdict=claim, seed=seed)
        rows.add("training_gap", 1e-14 * (seed + 1), surrogate="model", split="train", seed=seed)
        for prompt in range(3):
            shared: dict[str, Any] = {"prompt": f"r{seed}-{prompt}", "seed": seed}
            rows.add("winner_size", 3, surrogate="model", **shared)
            for name, overlap in overlaps.items():
                noise = 0.1 * float(rng.normal())
                rows.add("winner_jaccard", overlap + noise, surrogate=name, **shared)
                rows.add("winner_size", 4, surrogate=name, **shared)
                rows.add("dominance_area", 0.1, surrogate=name, **shared)
    return rows.frame()


def said(rows: pd.DataFrame, question: str) -> list[Answer]:
    return [answer for answer in answers(rows) if answer.question == question]


def named(found: list[Table], name: str) -> Table:
    return next(table for table in found if table.name == name)


def test_the_verdict_of_the_excess_risk_is_that_of_its_interval() -> None:
    for ratio, verdict in ((1.0, "agrees"), (3.0, "differs")):
        rows = made(ratio)
        (table,) = (t for t in tables(rows) if t.headline)
        found = {(row[0], row[1]): row for row in table.rows}
        assert found["trained model", "teacher"][-1] == verdict
        assert found["ccmc-fit", "trained model"][-1] == "agrees"
        assert found["trained model", "teacher"][-2] == pytest.approx(ratio, rel=0.1)
        answer = said(rows, RISK)[0]
        assert answer.answered
        assert answer.text.startswith("Excess risk of the trained model: ")
        assert (
            f"predicted {PREDICTED:.3f}, which {'agrees' if ratio == 1 else 'does not agree (ratio 3'}" in answer.text
        )
        assert answer.estimate is not None
        assert answer.estimate.value == pytest.approx(ratio * PREDICTED, rel=0.1)


def test_few_repetitions_have_no_verdict() -> None:
    rows = made(repetitions=3)
    assert not any(answer.answered for answer in said(rows, RISK))
    assert "Not answered: 3 units: fewer than 5 cannot carry an interval" in said(rows, RISK)[0].text
    assert tables(rows)[0].column("verdict") == [None] * 4
    (wins,) = said(rows, WINS)
    assert not wins.answered


def test_a_risk_without_a_value_says_why() -> None:
    rows = made()
    gone = (rows["metric"] == "excess_risk") & (rows["surrogate"] == "ccmc-fit")
    rows.loc[gone, ["value", "prediction"]] = pd.NA
    rows.loc[gone, "missing"] = "no maximum likelihood estimate"
    answer = said(rows, RISK)[1]
    assert not answer.answered
    assert answer.text == "Excess risk of ccmc-fit: could not be answered: no maximum likelihood estimate."


def test_the_equivalence_is_judged_where_it_is_claimed() -> None:
    (answer,) = said(made(), SAME)
    assert answer.answered
    assert answer.text.endswith("at most 1.0e-15 (12 repetitions): the equivalence holds.")
    (answer,) = said(made(error=0.1, claim="does not hold"), SAME)
    assert answer.answered
    assert "at most 0.100 (12 repetitions): the equivalence does not hold" in answer.text
    rows = made(error=0.1, claim="not claimed: d < K")
    (answer,) = said(rows, SAME)
    assert not answer.answered
    assert "the equivalence is not claimed: d < K" in answer.text
    assert named(tables(rows), "one-layer.equivalence").column("equivalence") == ["not claimed: d < K"]


def test_the_gap_of_training_is_the_largest() -> None:
    rows = made()
    (answer,) = said(rows, TRAINED)
    assert "at most 1.2e-13 nats per observation" in answer.text
    assert named(tables(rows), "one-layer.equivalence").column("training gap") == [pytest.approx(1.2e-13)]
    some = (rows["metric"] == "training_gap") & (rows["seed"] > 8)
    rows.loc[some, "value"], rows.loc[some, "missing"] = pd.NA, "no maximum likelihood estimate: separated"
    (answer,) = said(rows, TRAINED)
    assert "(9 repetitions)" in answer.text
    assert "In 3 other repetitions there is no maximum likelihood estimate" in answer.text
    rows.loc[rows["metric"] == "training_gap", "value"] = pd.NA
    rows.loc[rows["metric"] == "training_gap", "missing"] = "no maximum likelihood estimate: separated"
    (answer,) = said(rows, TRAINED)
    assert not answer.answered
    assert answer.text == "Could not be answered: no maximum likelihood estimate: separated."


def test_winners_are_told_from_the_floor_and_not_from_the_ceiling() -> None:
    (answer,) = said(made(), WINS)
    assert answer.answered
    assert "overlap by 0.6" in answer.text
    assert "(12 repetitions)" in answer.text
    floor, ceiling = answer.text.split("Another prompt's continuation reaches ")[1].split(
        "The model with another seed "
    )
    assert floor.startswith("0.2")
    assert floor.endswith(" less. ")
    assert "no difference found to it" in ceiling
    assert "this run could only have found one of about 0.0" in ceiling
    (answer,) = said(made(overlaps={"ccmc-fit": 0.2, "model-shuffled": 0.2, "model-reseeded": 0.9}), WINS)
    assert "Another prompt's continuation reaches" in answer.text
    assert answer.text.index("no difference found to it") < answer.text.index("The model with another seed")
    assert answer.text.endswith(" more.")


def test_repetitions_are_the_units_of_winners() -> None:
    table = named(tables(made()), "one-layer.winners")
    assert table.column("surrogate") == [
        "trained model",
        "other prompt (floor)",
        "ccmc-weights",
        "ccmc-fit",
        "other seed (ceiling)",
    ]
    overlaps = [cell for cell in table.column("winner_jaccard") if isinstance(cell, Interval)]
    assert [cell.n for cell in overlaps] == [12] * 4
    assert table.column("winners") == [3.0, 4.0, 4.0, 4.0, 4.0]
    assert "36 prompts" in table.caption


def test_several_settings_are_told_apart() -> None:
    rows = pd.concat([made(K=K) for K in (4, 8, 16, 32, 64)])
    found = tables(rows)
    headline, every = found[0], named(found, "one-layer.risk")
    assert headline.headline
    assert not any(table.headline for table in found[1:])
    assert len(headline.rows) == 10
    assert len(every.rows) == 20
    assert len(headline.columns) == 7
    assert headline.column("K") == [K for K in (4, 8, 16, 32, 64) for _ in range(2)]
    assert "10 of 20 lines" in headline.caption
    assert "d = 8, n = 100, prompt length = 5" in headline.caption
    assert max(len(plain(line)) for line in layout(headline, 100)) <= 100
    assert [answer.text.split(":")[0] for answer in said(rows, SAME)] == [
        f"K = {K}, d = 8, n = 100" for K in (4, 8, 16, 32, 64)
    ]


def test_tables_are_typed() -> None:
    found = tables(made())
    assert [table.name for table in found] == ["one-layer.summary", "one-layer.equivalence", "one-layer.winners"]
    assert [table.headline for table in found] == [True, False, False]
    for table in found:
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert all(cell is None or isinstance(cell, str | int | float | Interval) for row in table.rows for cell in row)


def test_no_rows_have_no_tables_and_one_answer() -> None:
    nothing = made().iloc[:0]
    assert tables(nothing) == []
    assert [answer.answered for answer in answers(nothing)] == [False]
    assert figures(nothing, pd.DataFrame()) == []


def test_figures_name_what_they_show() -> None:
    found = figures(made(), pd.DataFrame())
    assert [figure.name for figure in found] == ["one-layer-risk", "one-layer-winners"]
    texts = []
    for figure in found:
        out = io.StringIO()
        with context(figure.name):
            figure.draw().savefig(out, format="svg", metadata={"Date": None})
        texts.append(out.getvalue())
    assert ">ccmc-fit over the trained model</text>" in texts[0]
    assert ">theory</text>" in texts[0]
    assert ">other seed (ceiling)</text>" in texts[1]
