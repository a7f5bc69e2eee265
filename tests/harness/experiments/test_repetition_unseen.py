"""The table and the answer about one fit at an unseen temperature: figures known from made-up rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from made_up_repetition import LOSSES, RUNGS, repetition_rows

from harness.core.records import Answer, Interval, Table
from harness.experiments.repetition.answers import answers
from harness.experiments.repetition.parts import parts, short_rung
from harness.experiments.repetition.tables import tables
from harness.experiments.repetition.unseen import NEAREST, SMOOTH
from harness.experiments.repetition.unseen_table import MEASURES, QUESTION
from harness.report.render.layout import layout, plain

UNSEEN = "temperature=0.85"
STRATEGIES = ("greedy", "temperature=0.7", "temperature=1", UNSEEN)
JOINT = {"log_loss": 0.02, "seq_rep_4": 0.01, "above_half": 0.0, "energy_score": 0.1, "new_tokens": -0.01}
NULL = {"log_loss": 0.10, "seq_rep_4": 0.08, "above_half": 0.1, "energy_score": 0.5, "new_tokens": 0.03}
"""Measure -> what the joint fit, and the nearest weights, have more than the direct fit."""


def joint_rows(
    joint: Mapping[str, float] = JOINT,
    null: Mapping[str, float] = NULL,
    groups: int = 12,
    spread: float = 0.005,
    chosen: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """Rows of four strategies, one of them unseen; mean differences are exactly as given."""
    rng, rows = (
        np.random.default_rng(1),
        repetition_rows(strategies=STRATEGIES, groups=groups, removed=True, chosen=chosen),
    )
    frames = [rows]
    decoded = rows["condition"].str.contains('"law": "decoded"') & rows["condition"].str.contains('"rung"')
    direct = rows[(rows["surrogate"] == "context-logit") & (rows["strategy"] == UNSEEN) & decoded]
    direct = direct[direct["metric"].isin(MEASURES)]
    for source, more in ((SMOOTH, joint), (NEAREST, null)):
        for (metric, _), own in direct.groupby(["metric", "condition"], sort=False):
            drawn = rng.standard_normal(len(own))
            values = own["value"] + more[str(metric)] + spread * (drawn - drawn.mean())
            frames.append(own.assign(surrogate=source, value=values))
    return pd.concat(frames, ignore_index=True)


def named(rows: pd.DataFrame) -> dict[str, Table]:
    return {table.name: table for table in tables(rows)}


def answer(rows: pd.DataFrame) -> Answer:
    (found,) = (one for one in answers(rows) if one.question == QUESTION)
    return found


def test_the_joint_fit_stands_beside_the_direct_one_and_the_nearest() -> None:
    table = named(joint_rows())["repetition.unseen"]
    names = [column.name for column in table.columns]
    lines = [dict(zip(names, row, strict=True)) for row in table.rows]
    assert [(one["statistics"], one["measure"]) for one in lines] == [
        (short_rung(r), m) for r in RUNGS for m in MEASURES
    ]
    assert table.title.endswith(f"m, {UNSEEN}")
    for line in lines:
        joint, null = JOINT[line["measure"]], NULL[line["measure"]]
        for column, value in (("joint - direct", joint), ("joint - nearest", joint - null)):
            gap = line[column]
            assert isinstance(gap, Interval)
            assert gap.value == pytest.approx(value, abs=1e-9)
            assert gap.n == 12  # groups, not prompts
            assert gap.low is not None
            assert gap.high is not None
            assert gap.low < value < gap.high
            assert gap.high - gap.low < 0.02  # paired: the prompts' own spread is not in it
        assert line["joint"] - line["direct"] == pytest.approx(joint, abs=1e-9)
        assert line["nearest"] - line["direct"] == pytest.approx(null, abs=1e-9)
        assert 0 < line["findable"] < 0.02
    assert lines[0]["direct"] == pytest.approx(LOSSES["counts"])


def test_weights_of_other_strategies_are_in_no_other_table() -> None:
    rows = joint_rows()
    plain_rows = rows[~rows["surrogate"].isin([SMOOTH, NEAREST])]
    found, without = named(rows), named(plain_rows)
    assert found.keys() - without.keys() == {"repetition.unseen"}
    assert all(found[name].rows == table.rows for name, table in without.items())
    others = [one for one in answers(rows) if one.question != QUESTION]
    assert others == answers(plain_rows)
    assert all(part.rungs == RUNGS for part in parts(rows))


def test_the_answer_says_yes_where_the_nearest_loses_more() -> None:
    found = answer(joint_rows())
    assert found.answered
    assert found.text.startswith(f"m, {UNSEEN}: yes, weights of context-logit, up to followed-by-2,3, predicted from ")
    assert "predicted from greedy, temperature=0.7 and temperature=1, lose 0.08" in found.text
    assert "From a fit at this temperature they differ by +0.02" in found.text
    assert "they recover 80 %" in found.text
    assert "better than the nearest at 4 of 4 rungs (Holm)" in found.text
    assert (
        "walks repeat as much as those of a fit at this temperature, within 0.05: seq_rep_4 differs by +0.01"
        in found.text
    )
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(-0.08)


def test_the_chosen_rung_is_shown_first_and_speaks() -> None:
    rows = joint_rows(chosen=dict.fromkeys(range(3), "followed-by-1"))
    table = named(rows)["repetition.unseen"]
    found = [row[:2] for row in table.rows]
    assert found[: len(MEASURES)] == [["chosen rung", measure] for measure in MEASURES]
    same = [row for row in table.rows if row[0] == "followed-by-1"]
    assert [row[1:] for row in same] == [row[1:] for row in table.rows[: len(MEASURES)]]
    assert "weights of context-logit, up to followed-by-1 in all 3 folds, predicted from" in answer(rows).text


def test_the_answer_says_no_where_the_nearest_loses_less() -> None:
    found = answer(joint_rows(joint={**NULL, "log_loss": 0.15}))
    assert ": no, weights of" in found.text
    assert "lose 0.05" in found.text
    assert "more than those of the nearest" in found.text
    assert "at 0 of 4 rungs" in found.text
    assert "do not repeat as much" in found.text


def test_the_answer_says_what_was_not_shown() -> None:
    found = answer(joint_rows(joint={**JOINT, "log_loss": 0.1}))
    assert ": not shown, weights of" in found.text
    assert "could only have found one of about 0.00" in found.text


def test_few_groups_leave_it_open() -> None:
    found = answer(joint_rows(groups=3))
    assert not found.answered
    assert "could not be answered" in found.text


def test_runs_without_unseen_strategies_say_nothing() -> None:
    rows = repetition_rows()
    assert "repetition.unseen" not in named(rows)
    assert all(one.question != QUESTION for one in answers(rows))


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits(width: int) -> None:
    rows = pd.concat([joint_rows(), joint_rows().assign(model="org/a-model-with-a-long-name")], ignore_index=True)
    for given in (joint_rows(), rows):
        lines = [plain(one) for one in layout(named(given)["repetition.unseen"], width)]
        assert max(map(len, lines)) <= width
        assert "joint - nearest" in " ".join(lines)
