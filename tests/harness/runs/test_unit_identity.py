"""Stored units are never taken for others: another model, prompt, seed or setting is another unit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.config.load import load_config
from harness.data.prompts import Prompt, load_prompts
from harness.experiments._shared.continuations import Model
from harness.experiments.generation import units as generation
from harness.experiments.heads import units as heads

MODEL = Model("m", Path("/somewhere"), None, "a" * 64, 3)


def keys(config_path: Path, model: Model, prompts: list[Prompt] | None = None, *overrides: str) -> set[str]:
    """The keys of all units of heads and generation."""
    loaded = load_config(config_path, overrides)
    config = loaded.config
    texts = load_prompts(loaded) if prompts is None else prompts
    units = []
    for experiment in config.experiments:
        if experiment.kind == "heads":
            units += heads.plan(config, experiment, model, texts, "cpu", [])
        elif experiment.kind == "generation":
            units += generation.plan(config, experiment, model, texts, "cpu")
    return {unit.key for unit in units}


def test_the_place_of_the_weights_and_the_device_do_not_matter(small_config: Path) -> None:
    assert keys(small_config, MODEL) == keys(small_config, replace(MODEL, path=Path("/elsewhere")))


@pytest.mark.parametrize(
    "other",
    [replace(MODEL, weights_hash="b" * 64), replace(MODEL, name="other"), replace(MODEL, revision="main")],
    ids=["weights", "name", "revision"],
)
def test_two_models_never_share_a_unit(small_config: Path, other: Model) -> None:
    mine = keys(small_config, MODEL)
    assert len(mine) >= 7
    assert not mine & keys(small_config, other)


@pytest.mark.parametrize("change", [{"text": "w1 w2 w3"}, {"id": "other"}, {"split": "moved"}])
def test_a_changed_prompt_never_reuses_a_unit(small_config: Path, change: dict[str, str]) -> None:
    prompts = load_prompts(load_config(small_config))
    for index, prompt in enumerate(prompts):
        values: dict[str, Any] = dict(change)
        if "split" in values:
            values["split"] = "train" if prompt.split == "held_out" else "held_out"
        changed = [*prompts[:index], replace(prompt, **values), *prompts[index + 1 :]]
        reused = keys(small_config, MODEL, prompts) & keys(small_config, MODEL, changed)
        # the second continuation of held-out prompts does not see a training prompt
        assert len(reused) <= (prompt.split == "train" and "split" not in change)


def test_another_seed_or_length_never_reuses_a_unit(small_config: Path) -> None:
    mine = keys(small_config, MODEL)
    assert not mine & keys(small_config, MODEL, None, "seed=1")
    assert not mine & keys(small_config, MODEL, None, "generation.max_new_tokens=25")


def test_two_models_in_one_run_keep_apart_what_they_made(small_model: Path, finished: Any, tmp_path: Path) -> None:
    import small_models

    other = small_models.save(small_models.llama(3, seed=1), tmp_path / "other")
    changes = [f"models=['{small_model}', '{other}']", "experiments=[{kind: heads, layers: [0]}]"]
    run = harness.run(finished[1] / "small.yaml", overrides=changes, limit=2, out=tmp_path / "run")
    rows = run.rows[run.rows["metric"] == "sink_share"]
    one, two = (rows[rows["model"] == name]["value"].tolist() for name in (str(small_model), str(other)))
    assert len(one) == len(two) > 0
    assert one != two
    assert len({unit["key"] for unit in run.manifest["units"]}) == len(run.manifest["units"])
