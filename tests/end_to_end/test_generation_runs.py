"""A whole run of the generation experiment with every surrogate, strategy option and record it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import yaml

import harness
from harness.core import registry
from harness.experiments.generation.tables import against, all_errors, errors, ways

STRATEGIES: list[Any] = ["greedy", {"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.9}, {"beams": 2}]
NAMES = ["greedy", "temperature=1", "temperature=0.8,top_p=0.9", "beams=2"]

SURROGATES = tuple(name for name, one in registry.surrogates("next-token").items() if one.package == "ccmc-harness")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Any:
    folder = tmp_path_factory.mktemp("generation")
    texts = small_models.random_texts(14, 9)
    prompts = [{"id": f"p{i:02}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    generation = {
        "max_new_tokens": 20, "strategies": STRATEGIES, "batch_size": 7, "ignore_eos": True, "record": True,
    }  # fmt: skip
    experiment = {
        "kind": "generation", "surrogates": list(SURROGATES), "escape": True, "winners_at": [1, 3],
        "mean_field": True, "rollout_seeds": 2, "mixture_heads": 4,
    }  # fmt: skip
    config = {
        "name": "generation", "models": [str(small_model)], "prompts": "prompts.yaml", "held_out": 0.45,
        "generation": generation, "experiments": [experiment],
    }  # fmt: skip
    (folder / "generation.yaml").write_text(yaml.safe_dump(config))
    return harness.run(folder / "generation.yaml", out=folder / "run"), folder


def test_every_surrogate_has_its_rows(finished: Any) -> None:
    rows = finished[0].rows
    rows = rows[(rows["experiment"] == "generation") & (rows["split"] == "held_out")]
    assert set(rows["strategy"]) == set(NAMES)
    for metric in ("kl", "kl_with_escape", "escape", "winner_jaccard_at_3", "lock_in_error", "dominance_area"):
        assert set(SURROGATES) <= set(rows[rows["metric"] == metric]["surrogate"]), metric
    assert rows["value"].isna().equals(rows["missing"].notna())
    judged = rows[rows["metric"] == "seq_rep_1"]
    assert judged["condition"].str.contains('"ignore_eos": true').all()


def test_what_leaves_the_context_is_known(finished: Any) -> None:
    rows = finished[0].rows
    rows = rows[(rows["experiment"] == "generation") & (rows["strategy"] == "temperature=1")]
    shares = rows[rows["metric"] == "escape"]["value"]
    assert shares.between(0, 1, inclusive="neither").all()
    mass = rows[(rows["metric"] == "in_context_mass") & (rows["split"] == "train")]["value"].mean()
    fitted = rows[(rows["metric"] == "escape") & (rows["surrogate"] == "counts")]["value"].mean()
    assert fitted == pytest.approx(1 - mass, abs=0.15)


def test_tokens_are_recorded(finished: Any) -> None:
    trajectories = finished[0].trajectories
    real = trajectories[trajectories["experiment"] == "continuations"]
    for row in real.to_dict("records"):
        for column in ("log_probability", "entropy", "in_context_mass"):
            assert len(row[column]) == len(row["continuation"]) == 20
        assert (np.asarray(row["log_probability"]) <= 0).all()
    rows = finished[0].rows
    rows = rows[rows["experiment"] == "continuations"]
    greedy = rows[(rows["strategy"] == "greedy") & (rows["metric"] == "argmax_repeat_rate")]
    assert len(greedy) == 14
    assert greedy["value"].between(0, 1).all()


def test_heads_are_ranked_on_training_texts(finished: Any) -> None:
    rows = finished[0].rows
    heads = rows[(rows["metric"] == "cross_entropy") & (rows["strategy"] == "greedy")]
    assert set(heads["split"]) == {"train"}
    assert len(heads) == 3 * 6
    weights = rows[(rows["metric"] == "mixture_weight") & (rows["strategy"] == "greedy")]
    mixed = weights[weights["surrogate"] == "ccmc-mixture"]
    assert mixed["value"].sum() == pytest.approx(1.0)
    best = heads.sort_values("value", kind="stable").head(4)
    used = mixed[mixed["layer"].notna()]
    assert set(zip(used["layer"], used["head"], strict=True)) == set(zip(best["layer"], best["head"], strict=True))


def test_the_mean_field_speaks_about_plain_sampling_alone(finished: Any) -> None:
    rows = finished[0].rows
    rows = rows[rows["metric"] == "mean_field_jaccard"]
    plain = rows[rows["strategy"] == "temperature=1"]
    assert plain["value"].between(0, 1).all()
    others = rows[rows["strategy"] != "temperature=1"]
    assert set(others["strategy"]) == set(NAMES) - {"temperature=1"}
    assert others["missing"].str.contains("temperature 1").all()


def test_the_way_is_a_ratio_of_mean_errors(finished: Any) -> None:
    rows = finished[0].rows
    part = rows[(rows["experiment"] == "generation") & (rows["split"] == "held_out") & (rows["strategy"] == "greedy")]
    value = part["value"].astype(float)
    jaccard = part[part["metric"] == "winner_jaccard"]
    for name in ("counts", "model-shuffled"):
        chosen = jaccard[jaccard["surrogate"] == name]
        expected = 1 - chosen["value"].astype(float).groupby(chosen["prompt"]).mean()
        np.testing.assert_allclose(errors(part, name, "winner_jaccard"), expected)
    real = part[(part["metric"] == "seq_rep_4") & (part["surrogate"] == "model")]
    made = part[(part["metric"] == "seq_rep_4") & (part["surrogate"] == "counts")]
    for prompt, found in errors(part, "counts", "seq_rep_4").items():
        truth = float(value[real.index[real["prompt"] == prompt]].iloc[0])
        assert found == pytest.approx((value[made.index[made["prompt"] == prompt]] - truth).abs().mean())
    greedy = ways(part)
    assert {way.surrogate for way in greedy} == set(SURROGATES)
    told = [way.all.value for way in greedy if way.all.value is not None]
    assert told == sorted(told, reverse=True)
    assert errors(part, "model-reseeded", "dominance_area").max() == 0.0


def test_the_tables(finished: Any) -> None:
    titles = [table.title for table in finished[0].tables()]
    for start, count in (("Which surrogate explains", 2), ("Winners of", 1), ("Leaving the context", 1)):
        assert sum(title.startswith(start) for title in titles) == count


def test_the_best_surrogate_is_that_of_the_least_error(finished: Any) -> None:
    run = finished[0]
    (table,) = [t for t in run.tables() if t.title.endswith("how much of the way does it get?")]
    rows = run.rows[(run.rows["experiment"] == "generation") & (run.rows["split"] == "held_out")]
    assert [row[0] for row in table.rows] == list(dict.fromkeys(rows["strategy"]))
    for row in table.rows:
        table_of_errors = all_errors(rows[rows["strategy"] == row[0]])
        found: Any = table_of_errors["all"]
        found = found.drop(columns=["model-shuffled", "model-reseeded"])
        assert found.mean().idxmin() == row[1]
        surely = against(table_of_errors, row[1], [n for n in found if n != row[1]])
        equal = {name for name, p in surely.items() if p > 0.05}
        assert set(row[6].split(", ")) == (equal or {"none"})
        assert int(row[8]) == len(found)


def test_the_rows_do_not_depend_on_the_workers(finished: Any, tmp_path: Path) -> None:
    run, folder = finished
    again = harness.run(folder / "generation.yaml", out=tmp_path / "again", workers=2)
    assert again.rows.equals(run.rows)
    assert again.trajectories.equals(run.trajectories)
