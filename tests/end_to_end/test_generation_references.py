"""The committed reference runs of generation are complete, clean, and those of the shipped configs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import harness
from harness.config.load import load_config
from harness.experiments.causes import answers as causes_answers
from harness.experiments.causes import tables as causes_tables
from harness.experiments.count_ablation import answers as ablation_answers
from harness.experiments.count_ablation import tables as ablation_tables
from harness.experiments.generation import answers as generation_answers
from harness.experiments.generation import tables as generation_tables
from harness.experiments.repetition import answers as repetition_answers
from harness.experiments.repetition import tables as repetition_tables
from harness.experiments.self_reinforcement import answers as self_reinforcement_answers
from harness.experiments.self_reinforcement import tables as self_reinforcement_tables
from harness.report.render.layout import layout, plain

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference" / "generation"
MODULES = {
    "generation": (generation_tables, generation_answers),
    "causes": (causes_tables, causes_answers),
    "count-ablation": (ablation_tables, ablation_answers),
    "repetition": (repetition_tables, repetition_answers),
    "self-reinforcement": (self_reinforcement_tables, self_reinforcement_answers),
}
UNANSWERED = ("could not be answered", "cannot be tested", "not decided")
NAMES = sorted(path.parent.name for path in REFERENCE.glob("*/manifest.json"))


def test_there_are_reference_runs() -> None:
    assert "smollm2" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_run_is_that_of_its_config(name: str) -> None:
    run = harness.load_run(REFERENCE / name)
    assert run.state == "complete"
    assert run.manifest["git"]["dirty"] is False
    assert run.manifest["config"] == load_config(f"generation/{name}").config.model_dump(mode="json")
    assert run.manifest["failures"] == []


@pytest.mark.parametrize("name", NAMES)
def test_training_and_held_out_prompts_do_not_mix(name: str) -> None:
    run = harness.load_run(REFERENCE / name)
    real = run.trajectories[run.trajectories["experiment"].isin(["continuations", "causes"])]
    assert real.groupby("prompt")["split"].nunique().eq(1).all()
    held_out = set(real[real["split"] == "held_out"]["prompt"])
    rows = run.rows
    judged = rows[(rows["split"] == "held_out") & rows["metric"].isin(["kl", "winner_jaccard", "seq_rep_4"])]
    assert set(judged["prompt"].dropna()) <= held_out


@pytest.mark.parametrize("name", NAMES)
def test_every_missing_value_has_its_reason(name: str) -> None:
    rows = harness.load_run(REFERENCE / name).rows
    assert rows["value"].isna().equals(rows["missing"].notna())
    assert not rows["missing"].dropna().eq("").any()


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_run_has_answers_and_tables(name: str) -> None:
    """Every question is answered or says why not, and the headline fits beside them."""
    rows = harness.load_run(REFERENCE / name).rows
    kinds = [kind for kind in MODULES if (rows["experiment"] == kind).any()]
    assert kinds
    for kind in kinds:
        tables, answers = MODULES[kind]
        own = rows[rows["experiment"] == kind]
        said = answers.answers(own)
        assert any(answer.answered for answer in said)
        for answer in said:
            assert answer.estimate is not None or not answer.answered
            assert answer.answered or any(words in answer.text for words in UNANSWERED)
            if kind != "repetition":  # which lists the differences of seven measures in one sentence
                assert max(map(len, re.split(r"(?<=[.?]) (?=[A-Za-z])", answer.text))) <= 200, answer.text
        headline, *others = tables.tables(own)
        assert headline.headline
        assert not any(table.headline for table in others)
        assert 1 <= len(headline.rows) <= 12
        lines = [plain(line) for line in layout(headline, 100)]
        assert max(map(len, lines)) <= 100
        assert not any("not shown" in line for line in lines)
