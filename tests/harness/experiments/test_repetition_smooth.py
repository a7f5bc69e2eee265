"""One fit for all strategies, judged at a temperature that it did not see: from a config to its rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_models
import yaml

import harness
from harness.config.load import load_config
from harness.core.errors import UsageError
from harness.data.prompts import load_prompts
from harness.experiments._shared.continuations import Model
from harness.experiments.repetition import bases
from harness.experiments.repetition.kept import FILE, keep, kept
from harness.experiments.repetition.scores import read_scored
from harness.experiments.repetition.settings import Repetition
from harness.experiments.repetition.smooth import GivenLogit, nearest, predict
from harness.experiments.repetition.unseen import NEAREST, SMOOTH
from harness.experiments.run import plan_units
from harness.runs.units import Work
from harness.surrogates._fitting.smooth import smooth_weights, weights_at

UNSEEN = "temperature=0.8"
SEEN = {"greedy": 0.0, "temperature=0.7": 0.7, "temperature=1": 1.0}
LADDER = ("counts", "recency + followed-by-1")
KEYS = ["prompt", "condition"]


def write_config(folder: Path, model: Path, **changes: Any) -> Path:
    texts = small_models.random_texts(8, 14)
    prompts = [
        {"id": f"p{i}", "kind": "ab"[i % 2], "text": text, "group": f"g{i // 2}"} for i, text in enumerate(texts)
    ]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts), encoding="utf-8")
    experiment = {
        "kind": "repetition",
        "neutral": [texts[0][:3], texts[1][:4]],
        "statistics": list(LADDER),
        "laws": ["decoded"],
    }
    experiment |= {"surrogates": ["context-logit"], "rollout_seeds": 2, "warm_starts": [0, 6], "unseen": [UNSEEN]}
    config = {
        "name": "joint",
        "models": [str(model)],
        "prompts": "prompts.yaml",
        "folds": 2,
        "generation": {
            "max_new_tokens": 40,
            "strategies": ["greedy", *({"temperature": one} for one in (1.0, 0.8, 0.7))],
            "ignore_eos": True,
        },
        "experiments": [{**experiment, **changes}],
    }
    path = folder / "joint.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Any:
    folder = tmp_path_factory.mktemp("joint")
    return harness.run(write_config(folder, small_model), out=folder / "run", executor="serial")


def units(run: Any, task: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders and records of the units of a task."""
    for path in sorted(run.path.glob("units/*")):
        unit = json.loads((path / "unit.json").read_text(encoding="utf-8"))
        if unit["task"].endswith(task):
            yield path, unit["settings"]


def fold_of(run: Any, strategy: str, number: int) -> Path:
    """The folder of one fold of a strategy."""
    (found,) = (p for p, s in units(run, "units:fold") if (s["strategy"], s["judged"]) == (strategy, number))
    return found


def test_every_fold_keeps_its_weights_and_their_curvature(run: Any) -> None:
    fits = run.rows[(run.rows["metric"] == "weight") & (run.rows["surrogate"] == "context-logit")]
    for path, s in units(run, "units:fold"):
        own = fits[(fits["strategy"] == s["strategy"]) & (fits["fold"] == s["judged"])]
        rows = {
            (c["rung"], c["weight"]): v for c, v in zip(own["condition"].map(json.loads), own["value"], strict=True)
        }
        found = kept(path)
        assert tuple(found) == LADDER
        assert {
            (rung, n): w for rung, f in found.items() for n, w in zip(f.names, f.weights.tolist(), strict=True)
        } == rows
        for fit in found.values():
            assert fit.names[0] == "base"
            assert fit.choices == 4 * 40
            np.testing.assert_array_equal(fit.curvature, fit.curvature.T)
            assert np.linalg.eigvalsh(fit.curvature)[0] > 0


def test_the_joint_fit_sees_the_other_strategies_of_its_fold_alone(run: Any) -> None:
    rows = run.rows[(run.rows["metric"] == "weight") & (run.rows["surrogate"] == SMOOTH)]
    assert set(rows["strategy"]) == {UNSEEN}
    for number in (0, 1):
        fits = [kept(fold_of(run, strategy, number)) for strategy in SEEN]
        for rung in LADDER:
            of = [one[rung] for one in fits]
            line = smooth_weights(
                np.array(list(SEEN.values())), np.stack([f.weights for f in of]), np.stack([f.curvature for f in of]), 1
            )
            own = rows[(rows["fold"] == number) & (rows["condition"].map(lambda c: json.loads(c)["rung"]) == rung)]
            np.testing.assert_array_equal(own["value"], weights_at(line, 0.8))


def test_it_is_judged_as_a_fitted_rung_is(run: Any) -> None:
    rows = run.rows[(run.rows["experiment"] == "repetition") & (run.rows["split"] == "held_out")]
    direct = rows[(rows["surrogate"] == "context-logit") & (rows["strategy"] == UNSEEN)]
    for source in (SMOOTH, NEAREST):
        own = rows[rows["surrogate"] == source]
        assert set(own["strategy"]) == {UNSEEN}
        direct = direct[~direct["metric"].str.contains("brier|log_reuse|calibration")]  # no hazards
        columns = ["metric", "condition", "prompt", "group", "fold", "seed", "n"]
        wanted, found = (one[columns].sort_values(columns).reset_index(drop=True) for one in (direct, own))
        pd.testing.assert_frame_equal(wanted, found, check_dtype=False)
        assert {"log_loss", "kl", "new_share", "seq_rep_4", "above_half", "energy_score", "new_tokens"} <= set(
            own["metric"]
        )
    walks = run.trajectories[run.trajectories["source"] == SMOOTH]
    assert len(walks) == 8 * 2  # prompts, rungs: one walk of each


def test_the_nearest_weights_are_used_as_they_are(run: Any) -> None:
    """At T = .8 those of .7: judging the texts of the unseen strategy by them gives the rows again."""
    path, s = next((p, s) for p, s in units(run, "smooth:predict") if s["judged"] == 0)
    needs = needed(run, path)
    fit = kept(fold_of(run, "temperature=0.7", 0))[LADDER[-1]]
    surrogate = GivenLogit(fit.names, fit.weights, bases.load(needs[2 + s["neutral"].index(fit.base)]))
    texts = [text for text in read_scored(needs[0], needs[1], s, s["neutral"]) if text.fold == 0]
    rows = run.rows[(run.rows["metric"] == "log_loss") & (run.rows["surrogate"] == NEAREST)]
    rows = rows[rows["condition"].map(lambda c: json.loads(c)["rung"]) == LADDER[-1]].set_index("prompt")["value"]
    for text in texts:
        assert rows[text.prompt] == -surrogate.along(text).log_next.mean()


def needed(run: Any, unit: Path) -> list[Path]:
    """Folders of the units that a unit needs."""
    record = json.loads((unit / "unit.json").read_text(encoding="utf-8"))
    return [run.path / "units" / key for key in record["needs"]]


def test_a_fold_with_other_base_transitions_is_fitted_again(run: Any, tmp_path: Path) -> None:
    unit, s = next((p, s) for p, s in units(run, "smooth:predict") if s["judged"] == 0)
    inputs = needed(run, unit)
    places = [place for place, folder in enumerate(inputs) if (folder / FILE).exists()]
    fits = [kept(inputs[place]) for place in places]
    (base,) = {fit.base for of in fits for fit in of.values()}  # of both texts the same in all folds
    (other,) = set(s["neutral"]) - {base}
    wrong = {rung: replace(fit, base=other, weights=fit.weights + 1) for rung, fit in fits[1].items()}
    inputs[places[1]] = tmp_path / "other"
    inputs[places[1]].mkdir()
    keep(inputs[places[1]], wrong)
    (tmp_path / "again").mkdir()
    again = predict(Work(s, {}, inputs, tmp_path / "again", lambda share, what: None))
    first = pd.read_parquet(unit / "rows.parquet")
    pd.testing.assert_series_equal(again["value"], first["value"], check_exact=True)


def test_units_do_not_change_for_what_they_do_not_read(tmp_path: Path, small_model: Path) -> None:
    prompts = load_prompts(load_config(write_config(tmp_path, small_model)))
    model = Model("m", Path("/somewhere"), None, "a" * 64, 3, {prompt.id: [1, 2] for prompt in prompts})

    def planned(*overrides: str, **changes: Any) -> dict[str, str]:
        given = load_config(write_config(tmp_path, small_model, base_rows="all", **changes), overrides)
        return {unit.key: unit.task for unit in plan_units(given.config, [model], prompts, [[]], "cpu")}

    def of_one_alone(one: dict[str, str], other: dict[str, str]) -> list[str]:
        return sorted(one[key].rpartition(":")[2] for key in one.keys() - other.keys())

    plain, joint, bent = planned(unseen=[]), planned(), planned(degree=2)
    assert of_one_alone(plain, joint) == ["choose_rungs", "judge"]  # one reads more walks, the other fewer strategies
    assert of_one_alone(joint, plain) == ["choose_rungs", "judge", "predict", "predict"]
    assert of_one_alone(bent, joint) == ["judge", "predict", "predict"]
    seen = planned("generation.strategies=[greedy, {temperature: 1.0}, {temperature: 0.7}]", unseen=[])
    assert of_one_alone(seen, joint) == []  # a strategy that is not seen changes nothing of all others, nor the choice
    assert {"unseen", "degree"}.isdisjoint(Repetition(kind="repetition").model_dump())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("experiments.repetition.unseen=[temperature=0.9]", r"'temperature=0\.9' is no strategy of generation"),
        ("experiments.repetition.unseen=[greedy, greedy]", "a strategy is named twice: greedy, greedy"),
        ("experiments.repetition.unseen=[greedy, temperature=1, temperature=0.7]", "degree 1 needs 2 strategies"),
        ("experiments.repetition.degree=3", r"degree 3 needs 4 strategies that it sees"),
        ("experiments.repetition.base=none", "unseen needs base: model"),
        ("experiments.repetition.surrogates=[suffix]", "unseen needs context-logit"),
        ("generation.strategies=[greedy, {temperature: 0.8}, {temperature: 1, top_k: 9}]", "top_k=9 is more than"),
        ("generation.strategies=[greedy, {temperature: 1}, {temperature: 0.8, top_k: 5}]", "is no strategy"),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_line(tmp_path: Path, small_model: Path, override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        harness.run(write_config(tmp_path, small_model), out=tmp_path / "run", overrides=[override])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_unseen_strategy_with_cuts_is_refused(tmp_path: Path, small_model: Path) -> None:
    path = write_config(tmp_path, small_model, unseen=["temperature=0.8,top_k=5"])
    given = ["generation.strategies=[greedy, {temperature: 1.0}, {temperature: 0.8, top_k: 5}]"]
    with pytest.raises(UsageError, match=r"strategy temperature=0\.8,top_k=5 is more than a temperature"):
        harness.run(path, out=tmp_path / "run", overrides=given)


def test_two_temperatures_can_be_equally_near() -> None:
    assert nearest(np.array([0.0, 0.7, 1.0]), 0.85) == [1, 2]
    assert nearest(np.array([0.0, 0.7, 1.0]), 0.8) == [1]
    assert nearest(np.array([0.7, 1.0]), 0.0) == [0]
