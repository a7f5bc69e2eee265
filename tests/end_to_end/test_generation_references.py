"""The committed reference runs of generation are complete, clean, and those of the shipped configs."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness.config.load import load_config

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference" / "generation"
README = Path(__file__).resolve().parents[2] / "README.md"
BEST = "best, and how much of the way does it get?"
CAUSE = "Does the count cause the repetition"
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
    real = run.trajectories[run.trajectories["experiment"] == "continuations"]
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
def test_the_readme_shows_what_each_run_says(name: str) -> None:
    """Which surrogate is best, and whether the count is the cause."""
    tables = harness.load_run(REFERENCE / name).tables()
    (shown,) = [t for t in tables if t.title.endswith(BEST) or t.title.startswith(CAUSE)]
    assert shown.markdown().strip() in README.read_text(encoding="utf-8"), f"out of date: {shown.title}"
