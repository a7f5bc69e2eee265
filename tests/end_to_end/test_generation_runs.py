"""A whole run of the generation experiment with every surrogate, strategy option and record it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_models
import yaml

import harness
from harness.core import registry
from harness.experiments.generation.parts import parts
from harness.experiments.generation.recovered import against, errors, recovered
from harness.experiments.generation.tables import tables
from harness.stats.pooling import Sample

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


def generation_rows(run: Any) -> pd.DataFrame:
    return run.rows[run.rows["experiment"] == "generation"]


def test_a_recovered_share_is_a_ratio_of_mean_errors(finished: Any) -> None:
    (part,) = (one for one in parts(generation_rows(finished[0])) if one.strategy == "greedy")
    rows = part.rows
    jaccard = rows[rows["metric"] == "winner_jaccard"]
    found = errors(part)
    units = found["who", "counts"].units
    for name in ("counts", "model-shuffled"):
        chosen = jaccard[jaccard["surrogate"] == name]
        expected = 1 - chosen["value"].astype(float).groupby(chosen["prompt"]).mean()
        np.testing.assert_allclose(values(found["who", name]), expected.loc[units])
    repeats = rows[rows["metric"] == "seq_rep_4"].assign(value=lambda frame: frame["value"].astype(float))
    real = repeats[repeats["surrogate"] == "model"].set_index("prompt")["value"]
    made = repeats[repeats["surrogate"] == "counts"]
    distance = (made["value"] - made["prompt"].map(real)).abs().groupby(made["prompt"]).mean()
    np.testing.assert_allclose(values(found["how much", "counts"]), distance.loc[units])
    assert found["when", "model-reseeded"].value == 0.0
    of = recovered(part)
    assert {share.surrogate for share in of.shares} == set(SURROGATES)
    shares = [share.all.value for share in of.shares if share.all.value is not None]
    assert shares == sorted(shares, reverse=True)


def values(sample: Sample) -> np.ndarray[Any, Any]:
    assert sample.pooled is not None
    return sample.pooled.numerators


def test_the_tables(finished: Any) -> None:
    found = tables(generation_rows(finished[0]))
    names = ("best", "in-context", "next-token", "agreement", "recovered", "winners", "timing", "mean-field", "leaving")
    assert [table.name for table in found] == [f"generation.{name}" for name in names]
    assert all(len(row) == len(table.columns) for table in found for row in table.rows)
    winners = found[5].column("winners")
    assert set(winners) == {"90 %", "top 1", "top 3"}


def test_the_best_surrogate_is_that_of_the_least_error(finished: Any) -> None:
    rows = generation_rows(finished[0])
    table = tables(rows)[0]
    assert table.column("strategy") == NAMES
    for part, best, ties in zip(parts(rows), table.column("best"), table.column("ties"), strict=True):
        found = errors(part)
        names = [name for question, name in found if question == "all" and name in SURROGATES]
        assert min(names, key=lambda name: found["all", name].value or 0.0) == best
        tests = against(found, str(best), [name for name in names if name != best])
        assert ties == sum(p > 0.05 for p in tests.values())


def test_the_rows_do_not_depend_on_the_workers(finished: Any, tmp_path: Path) -> None:
    run, folder = finished
    again = harness.run(folder / "generation.yaml", out=tmp_path / "again", workers=2)
    assert again.rows.equals(run.rows)
    assert again.trajectories.equals(run.trajectories)
