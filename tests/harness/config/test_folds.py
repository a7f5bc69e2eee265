"""The setting `folds`: in the place of `held_out`, for experiments that cross-fit, not recorded where it is not set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.load import Config, load_config
from harness.core import registry
from harness.core.errors import UsageError
from harness.experiments.heads.experiment import HeadsExperiment
from harness.report.overview import facts

ROOT = Path(__file__).resolve().parents[3]
GIVEN: dict[str, Any] = {"name": "x", "models": ["m"], "prompts": "p.yaml", "experiments": [{"kind": "heads"}]}


@pytest.fixture
def crossing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The experiment on heads, as if it cross-fitted."""
    monkeypatch.setattr(HeadsExperiment, "cross_fits", True)


def test_both_are_one_error(crossing: None) -> None:
    with pytest.raises(UsageError, match=r"both held_out: 0\.4 and folds: 5 are given; remove held_out") as caught:
        load_config({**GIVEN, "held_out": 0.4, "folds": 5})
    assert "more)" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_experiment_that_does_not_cross_fit_says_what_to_write() -> None:
    message = "experiment 'heads' does not cross-fit: write held_out, such as held_out: 0.25, in the place of folds: 5$"
    with pytest.raises(UsageError, match=message):
        load_config({**GIVEN, "folds": 5})
    assert not registry.experiment("heads").cross_fits


def test_one_experiment_of_several_is_named(crossing: None) -> None:
    both = [{"kind": "heads"}, {"kind": "equivalence"}]
    with pytest.raises(UsageError, match="experiment 'equivalence' does not cross-fit"):
        load_config({**GIVEN, "experiments": both, "folds": 5})


@pytest.mark.parametrize(
    ("folds", "message"), [(1, "folds: .*at least 2"), (21, "folds: .*at most 20"), (2.5, "folds")]
)
def test_how_many_folds_there_may_be(crossing: None, folds: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config({**GIVEN, "folds": folds})


def test_configs_without_folds_are_recorded_as_before() -> None:
    assert "folds" not in load_config(GIVEN).config.model_dump(mode="json")
    manifest = json.loads((ROOT / "results/reference/quickstart/manifest.json").read_text(encoding="utf-8"))
    assert load_config("quickstart").config.model_dump(mode="json") == manifest["config"]


def test_a_recorded_config_with_folds_can_be_read_again(crossing: None) -> None:
    config = load_config({**GIVEN, "folds": 5}).config
    recorded = config.model_dump(mode="json")
    assert recorded["folds"] == 5
    assert "held_out" not in recorded
    assert Config.model_validate(recorded) == config
    assert load_config(config, ["folds=3"]).config.folds == 3
    assert load_config({**GIVEN, "folds": None, "held_out": 0.4}).config.held_out == 0.4


def test_a_run_says_how_its_prompts_were_judged() -> None:
    manifest = {"models": [], "config": {"folds": 5}, "prompts": {"train": 0, "held_out": 240}}
    assert facts(manifest) == "240 prompts in 5 folds, each judged once"
    manifest["config"], manifest["prompts"] = {}, {"train": 18, "held_out": 6}
    assert facts(manifest) == "18 prompts to fit on, 6 held out"
