"""Continuations of prompts in groups: their rows and texts name the group, and do not depend on folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from harness.config.load import Config
from harness.core.hashing import canonical_hash
from harness.data.splits import Prompt
from harness.experiments._shared.continuations import (
    Model,
    continuation_unit,
    continue_prompts,
    prompt_settings,
    read_continuations,
)
from harness.runs.units import Unit, Work

PROMPTS = [
    Prompt("a", "k", "w1 w2 w3", split="held_out", fold=1, group="g"),
    Prompt("b", "k", "w4 w5 w6", split="held_out", fold=1, group="g"),
    Prompt("c", "k", "w7 w8 w9", split="held_out"),
]


def unit_of(path: Path, prompts: list[Prompt]) -> Unit:
    tokens = {prompt.id: [int(word[1:]) for word in prompt.text.split()] for prompt in prompts}
    generation = {"max_new_tokens": 4, "record": True}
    config = Config(name="x", models=[str(path)], generation=generation, experiments=[{"kind": "one-layer"}])
    model = Model("m", path, None, "a" * 64, 3, tokens)
    return continuation_unit(config, model, prompts, config.generation.strategies[0], 0, "cpu")


@pytest.fixture(scope="module")
def made(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """The folder and the rows of one unit."""
    unit, folder = unit_of(small_model, PROMPTS), tmp_path_factory.mktemp("unit")
    rows = continue_prompts(Work(unit.settings, unit.local, [], folder, lambda share, what: None))
    return folder, rows


def test_rows_and_texts_name_the_group(made: tuple[Path, pd.DataFrame]) -> None:
    folder, rows = made
    assert set(rows["metric"]) > {"length", "entropy"}
    for prompt, own in rows.groupby("prompt"):
        assert own["group"].isna().all() if prompt == "c" else set(own["group"]) == {"g"}
    assert [(one.prompt, one.group) for one in read_continuations(folder)] == [("a", "g"), ("b", "g"), ("c", "c")]


def test_texts_of_older_units_are_groups_of_their_own(made: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    texts = pd.read_parquet(made[0] / "trajectories.parquet").drop(columns="group")
    texts.to_parquet(tmp_path / "trajectories.parquet")
    assert [one.group for one in read_continuations(tmp_path)] == ["a", "b", "c"]


def test_other_folds_write_the_same_texts_and_other_groups_other_rows(small_model: Path) -> None:
    key = unit_of(small_model, PROMPTS).key
    assert unit_of(small_model, [replace(prompt, fold=3) for prompt in PROMPTS]).key == key
    assert unit_of(small_model, [replace(prompt, group="h") for prompt in PROMPTS]).key != key


def test_settings_of_prompts_without_groups_are_as_in_older_runs() -> None:
    model = Model("m", Path("m"), None, "a" * 64, 3, {"c": [7, 8, 9]})
    about = {"id": "c", "kind": "k", "split": "held_out", "tokens_sha256": canonical_hash([7, 8, 9])}
    assert prompt_settings(model, PROMPTS[2]) == about
