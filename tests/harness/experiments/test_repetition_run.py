"""The experiment `repetition` from a config to its rows: cross-fitted, resumable, and with laws as they should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_models
import torch
import yaml

import harness
from ccmc import BaseTransition, ContextLogit
from harness.config.load import shipped_configs
from harness.core.errors import UsageError
from harness.core.rows import completed
from harness.experiments._shared.ladder import rungs
from harness.experiments.repetition.choosing import choose_rungs
from harness.experiments.repetition.opened import Opened
from harness.experiments.repetition.parts import parts
from harness.experiments.repetition.plan import _of_surrogates, _refinements
from harness.experiments.repetition.refinements import walked
from harness.experiments.repetition.scores import decoded, read_scored
from harness.experiments.repetition.settings import LADDER, Repetition, left_out, other_rungs
from harness.experiments.repetition.units import fold
from harness.experiments.repetition.vectors import figures
from harness.experiments.repetition.walks_kept import read_walks
from harness.models.loading import load_model
from harness.report.page import render_report
from harness.report.page_data import viewer
from harness.runs.units import Work
from harness.surrogates.vocabulary.context_logit import ContextLogitSurrogate
from harness.surrogates.vocabulary_base import ScoredText


def write_config(folder: Path, model: Path, **changes: Any) -> Path:
    texts = small_models.random_texts(8, 14)
    prompts = [
        {"id": f"p{i}", "kind": "ab"[i % 2], "text": text, "group": f"g{i // 2}"} for i, text in enumerate(texts)
    ]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts), encoding="utf-8")
    experiment = {"kind": "repetition", "neutral": [texts[0][:3]], "statistics": ["counts", "recency + followed-by-1"]}
    experiment |= {"rollout_seeds": 2, "hazard_rollouts": 2, "removed": True}
    experiment |= {
        "on_policy": 1,
        "regimes": "last",
        "alternatives": {"log counts": ["counts", "recency + log-followed-by-1"]},
    }
    config = {
        "name": "repetition",
        "models": [str(model)],
        "prompts": "prompts.yaml",
        "folds": 2,
        "generation": {
            "max_new_tokens": 40, "strategies": ["greedy", {"temperature": 0.8, "top_p": 0.9}], "seeds": 2,
            "ignore_eos": True,
        },
        "experiments": [{**experiment, "warm_starts": [0, 6], **changes}],
    }  # fmt: skip
    path = folder / "repetition.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Any:
    folder = tmp_path_factory.mktemp("repetition")
    return harness.run(write_config(folder, small_model), out=folder / "run", executor="serial")


def all_walks(run: Any) -> pd.DataFrame:
    """Those that the units keep, more than the run's table."""
    return pd.concat([read_walks(file.parent) for file in sorted(run.path.glob("units/*/walks.parquet"))])


def test_a_run_shows_one_walk_of_each_source(run: Any) -> None:
    walks = run.trajectories[run.trajectories["experiment"] == "repetition"]
    assert set(walks["seed"]) == {0}
    assert set(walks["t0"]) == {0}
    assert set(walks["law"]) == {"decoded"}
    every = all_walks(run)
    keys = ["strategy", "source", "rung", "prompt", "refined"]
    shown, kept = (frame[keys].fillna("").drop_duplicates() for frame in (walks, every[every["t0"] == 0]))
    assert sorted(map(tuple, shown.to_numpy())) == sorted(map(tuple, kept.to_numpy()))
    assert len(shown) == len(walks) < len(every) / 3
    names = [*keys, "law", "t0", "seed"]
    known = {tuple(row[name] for name in names): row["continuation"] for row in every.fillna("").to_dict("records")}
    for row in walks.fillna("").to_dict("records"):
        assert (row["continuation"] == known[tuple(row[name] for name in names)]).all()


def test_the_report_shows_walks_behind_their_prompts(run: Any) -> None:
    shown = viewer(run)
    assert shown is not None
    own = {(one["prompt"], one["strategy"]): one["given"] for one in shown["texts"] if one["source"] == "model"}
    walks = [one for one in shown["texts"] if one["source"] not in ("model", "unigram")]
    assert own
    assert any(one["source"].startswith("context-logit, counts, decoded law") for one in walks)
    assert all(one["given"] == own[one["prompt"], one["strategy"]] != [] for one in walks)
    assert "walks" in render_report([run])


def test_every_prompt_is_judged_once_by_fits_that_did_not_see_its_group(run: Any) -> None:
    rows = run.rows[(run.rows["metric"] == "kl") & (run.rows["surrogate"] == "suffix")]
    rows = rows[rows["condition"] == json.dumps({"law": "raw"})]
    assert rows.groupby(["strategy", "prompt"]).size().eq(1).all()
    assert rows["prompt"].nunique() == 8
    assert rows.groupby("group")["fold"].nunique().eq(1).all()
    units = [json.loads(path.read_text(encoding="utf-8")) for path in run.path.glob("units/*/unit.json")]
    folds = [unit["settings"] for unit in units if unit["task"].endswith("units:fold")]
    assert {(fold["strategy"], fold["judged"]) for fold in folds} == {
        (strategy, number) for strategy in ("greedy", "temperature=0.8,top_p=0.9") for number in (0, 1)
    }
    for one in folds:
        assert "bigram" not in one  # nothing is counted for base transitions that are read off the model
        groups = one["groups"]
        judged = {groups[p] for p, number in one["folds"].items() if number == one["judged"]}
        assert judged.isdisjoint(groups[p] for p, number in one["folds"].items() if number != one["judged"])


def test_rows_of_every_part(run: Any) -> None:
    rows = run.rows[run.rows["experiment"] == "repetition"]
    metrics = {"kl", "top_token", "log_loss", "new_share", "entropy", "seq_rep_4", "new_tokens", "energy_score"}
    assert metrics | {"crps_seq_rep_4", "window_energy", "winner_energy", "weight", "training_loss"} <= set(
        rows["metric"]
    )
    sources = {"model", "model-reseeded", "model-shuffled", "constant", "never-repeats", "context-logit", "suffix"}
    assert sources <= set(rows["surrogate"].dropna())
    assert {"brier_reuse", "log_reuse", "brier_which", "brier_loop", "brier_leave"} <= set(rows["metric"])
    forecast = rows[(rows["metric"] == "brier_reuse") & (rows["strategy"] == "greedy")]
    own = forecast[(forecast["surrogate"] == "model") & (forecast["condition"] == '{"law": "decoded"}')]
    assert own["value"].max() < 1e-9  # greedy text is no surprise to its own law
    assert forecast.groupby(["surrogate", "condition"], dropna=False)["prompt"].nunique().eq(8).all()
    cuts = rows[(rows["strategy"] == "temperature=0.8,top_p=0.9") & (rows["metric"] == "seq_rep_4")]
    laws = {json.loads(c).get("law") for c in cuts["condition"].dropna()}
    assert laws == {None, "decoded", "raw"}  # where the strategy, with its cuts, is applied afterwards
    ceiling = rows[(rows["surrogate"] == "model-reseeded") & (rows["metric"] == "energy_score")]
    assert ceiling[ceiling["strategy"] == "greedy"]["value"].eq(0).all()  # one continuation: a point


def test_a_law_is_fitted_once_where_the_strategy_leaves_it_as_it_is(tmp_path: Path, small_model: Path) -> None:
    given = ["generation.strategies=[{temperature: 1.0}, {temperature: 0.7}]", "generation.max_new_tokens=30"]
    given += ["experiments.repetition.surrogates=[unigram, context-logit]", "experiments.repetition.hazard_rollouts=0"]
    path = write_config(tmp_path, small_model)
    done = harness.run(path, out=tmp_path / "run", overrides=given, limit=2, executor="serial")
    walks = all_walks(done)
    kinds = walks.groupby(["strategy", "law"])["t0"].unique().map(set).to_dict()
    assert kinds == {
        ("temperature=0.7", "decoded"): {0, 6},
        ("temperature=0.7", "raw"): {0},  # later starts are those of the decoded law
        ("temperature=1", "decoded"): {0, 6},
    }
    rows = done.rows[done.rows["metric"].isin(["log_loss", "weight"]) & (done.rows["surrogate"] == "context-logit")]
    laws = {
        (strategy, json.loads(text)["law"]) for strategy, text in zip(rows["strategy"], rows["condition"], strict=True)
    }
    assert laws == set(kinds)
    assert [part.one_law for part in parts(done.rows)] == [True, False]


def test_the_last_rung_is_fitted_again_without_each_entry(run: Any) -> None:
    rows = run.rows[(run.rows["metric"] == "log_loss") & (run.rows["surrogate"] == "context-logit")]
    rows = rows.assign(condition=rows["condition"].map(json.loads))
    rows = rows.assign(without=rows["condition"].map(lambda c: c.get("without")), law=rows["condition"].map(
        lambda c: c["law"]), rung=rows["condition"].map(lambda c: c.get("rung")))  # fmt: skip
    left = rows[rows["without"].notna()]
    assert set(left["law"]) == {"decoded"}
    assert left["rung"].isna().all()
    assert set(left["without"]) == {"counts", "recency + followed-by-1", "statistics", "base"}
    assert left.groupby(["strategy", "without"])["prompt"].nunique().eq(8).all()
    keys = ["strategy", "prompt"]
    first = rows[(rows["rung"] == "counts") & (rows["law"] == "decoded")].set_index(keys)["value"].sort_index()
    last_out = left[left["without"] == "recency + followed-by-1"].set_index(keys)["value"].sort_index()
    pd.testing.assert_series_equal(first, last_out, check_exact=True)  # without its last entry it is the rung before
    walks = all_walks(run)
    assert set(walks[walks["source"] == "context-logit"]["rung"]) == {"counts", "recency + followed-by-1"}


def test_refinements_are_judged_beside_their_rungs(run: Any) -> None:
    rows = run.rows[run.rows["surrogate"] == "context-logit"]
    rows = rows.assign(condition=rows["condition"].map(json.loads))
    rows = rows.assign(refined=rows["condition"].map(lambda c: c.get("refined")), rung=rows["condition"].map(
        lambda c: c.get("rung")))  # fmt: skip
    refined = rows[rows["refined"].notna()]
    assert set(refined["refined"]) == {"on policy", "log counts", "two regimes"}
    assert set(refined["rung"]) == {"recency + followed-by-1"}  # the first rungs of both ladders are the same
    assert set(refined["condition"].map(lambda c: c["law"])) == {"decoded"}
    for metric in ("log_loss", "new_share", "seq_rep_4", "energy_score"):
        found = refined[(refined["metric"] == metric) & ~refined["condition"].map(lambda c: "t0" in c)]
        assert found.groupby(["strategy", "refined"])["prompt"].nunique().eq(8).all()
    weights = rows[(rows["metric"] == "weight") & (rows["rung"] == "recency + followed-by-1")]
    weights = weights.assign(weight=weights["condition"].map(lambda c: c["weight"]))
    assert "log-followed-by-1" in set(weights[weights["refined"] == "log counts"]["weight"])
    plain = weights[weights["refined"].isna() & weights["condition"].map(lambda c: c["law"] == "decoded")]
    own = weights[weights["refined"] == "on policy"]
    keys = ["strategy", "fold", "weight"]
    both = plain.set_index(keys)["value"].to_frame("plain").join(own.set_index(keys)["value"], how="inner")
    assert len(both) == len(plain) == len(own)
    assert (both["plain"] != both["value"]).all()
    walks = all_walks(run)
    assert {"on policy", "log counts", "two regimes"} <= set(walks["refined"])
    assert {"regime_share", "regime_stay"} <= set(refined["metric"])
    names = {table.name: table for table in run.tables()}
    assert "repetition.refinements" in names
    assert set(names["repetition.refinements"].column("refinement")) >= {"on policy", "log counts", "two regimes"}


def test_walks_from_training_prompts_carry_the_models_law(tmp_path: Path, small_model: Path) -> None:
    model = load_model(small_model, "cpu")
    prompt, other = np.array([5, 9, 2, 7]), np.array([3, 3, 8])
    texts = [ScoredText(name, name, 0, np.concatenate([ids, np.arange(n)]), len(ids), {}) for name, ids, n in (
        ("a", prompt, 12), ("b", other, 7))]  # fmt: skip
    size = model.get_output_embeddings().weight.shape[0]
    surrogate = ContextLogitSurrogate()
    surrogate.model_ = ContextLogit({"present": 1.0, "log-count": 0.5}, BaseTransition.flat(size))
    settings = {"strategy": "temperature=0.5", "temperature": 0.5, "options": {"temperature": 0.5}}
    opened = Opened(1, texts, [], {"none": BaseTransition.flat(size)}, {}, None, size)
    found = walked(surrogate, model, opened, settings, 4)
    assert [len(text) for text in found] == [12, 7]
    paths = surrogate.model_.rollout([prompt, other], 12, 4)
    for text, before, path in zip(found, (prompt, other), paths, strict=True):
        np.testing.assert_array_equal(text.tokens, [*before, *path[: len(text)]])
        with torch.inference_mode():
            logits = model(torch.as_tensor(text.tokens)[None]).logits[0, text.start - 1 : -1].double()
        p = torch.softmax(logits / 0.5, -1).numpy()
        expected = np.where(text.known, p[:, text.numbered.types], 0.0)
        np.testing.assert_allclose(text.laws["decoded"].inside, expected, atol=1e-5)


def test_refinements_are_no_settings_of_runs_without_them() -> None:
    plain = Repetition(kind="repetition").model_dump()
    assert not {"on_policy", "on_policy_rungs", "alternatives", "regimes"} & plain.keys()
    assert _refinements(Repetition(kind="repetition")) == {}
    with pytest.raises(ValueError, match="similarity reads the model's embeddings"):
        Repetition(kind="repetition", base="best", statistics=("counts", "similarity"))
    with pytest.raises(ValueError, match="on_policy needs context-logit"):
        Repetition(kind="repetition", on_policy=1, laws=("raw",))
    refined = Repetition(kind="repetition", on_policy=2, regimes="all", alternatives={"log": LADDER})
    assert _of_surrogates(refined) == _of_surrogates(Repetition(kind="repetition"))
    assert set(_refinements(refined)) == {"on_policy", "regimes", "alternatives"}


def test_alternatives_stand_in_the_place_of_rungs() -> None:
    found = other_rungs(("counts", "recency", "suffix"), {"log": ("counts", "log-suffix", "recency + followed-by-1")})
    assert found == {
        ("log", "recency"): ("counts", "log-suffix"),
        ("log", "suffix"): ("counts", "log-suffix", "recency", "followed-by-1"),
    }


def test_walks_have_the_length_of_the_models_text(run: Any) -> None:
    walks = all_walks(run)
    assert walks["t0"].isin([0, 6]).all()
    assert (walks["continuation"].map(len) == 40 - walks["t0"]).all()


def test_every_fold_walks_from_its_training_prompts_and_chooses_one_rung(run: Any) -> None:
    rows = run.rows
    walked = rows[rows["metric"] == "training_energy"]
    assert set(walked["split"]) == {"train"}
    ladder = {json.dumps({"law": "decoded", "rung": rung}) for rung in ("counts", "recency + followed-by-1")}
    assert set(walked["condition"]) == ladder
    assert walked.groupby(["strategy", "fold", "condition"])["prompt"].nunique().eq(4).all()
    judged_in = rows[(rows["metric"] == "kl") & rows["fold"].notna()].groupby("prompt")["fold"].first()
    assert (walked["fold"].to_numpy() != judged_in[walked["prompt"]].to_numpy()).all()
    chosen = rows[rows["metric"] == "chosen_rung"]
    assert chosen["fold"].tolist() == [0, 1]
    assert chosen["strategy"].isna().all()  # one for all strategies
    assert set(run.trajectories["split"].dropna()) == {"held_out"}
    (table,) = [one for one in run.tables() if one.name == "repetition.chosen"]
    of_rungs = walked.groupby(["fold", "strategy", "condition"])["value"].mean().groupby(["fold", "condition"]).sum()
    for number, condition in zip(chosen["fold"], chosen["condition"], strict=True):
        assert json.loads(condition)["rung"] == json.loads(of_rungs[number].idxmin())["rung"]
    assert "the one with the least mean energy score" in table.caption


def test_the_choice_does_not_see_what_follows_judged_prompts(run: Any, tmp_path: Path) -> None:
    """Other continuations of judged prompts change how rungs are judged, but neither training rows nor the choice."""
    units = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in run.path.glob("units/*/unit.json")
    }
    (choice,) = [unit for unit in units.values() if unit["task"].endswith("choosing:choose_rungs")]
    folders = {key: run.path / "units" / key for key in units}
    for key in choice["needs"]:
        s = units[key]["settings"]
        inputs = []
        for number, need in enumerate(units[key]["needs"]):
            copied = tmp_path / key / str(number)
            shutil.copytree(folders[need], copied)
            if units[need]["task"].endswith("continue_prompts"):
                _rewrite(copied / "trajectories.parquet", {p for p, f in s["folds"].items() if f == s["judged"]})
            inputs.append(copied)
        again = fold(Work(s, {}, inputs, tmp_path / key, lambda share, what: None))
        again.to_parquet(tmp_path / key / "rows.parquet")
        before = pd.read_parquet(folders[key] / "rows.parquet")
        old, new = (completed(frame)[lambda of: of["split"] == "train"] for frame in (before, again))
        pd.testing.assert_frame_equal(old.reset_index(drop=True), new.reset_index(drop=True), check_exact=True)
        judged = [frame[frame["metric"] == "log_loss"]["value"].to_numpy() for frame in (before, again)]
        assert not np.allclose(judged[0].astype(float), judged[1].astype(float))
    found = [
        choose_rungs(Work(choice["settings"], {}, inputs, tmp_path, lambda share, what: None))
        for inputs in ([folders[key] for key in choice["needs"]], [tmp_path / key for key in choice["needs"]])
    ]
    pd.testing.assert_frame_equal(*found, check_exact=True)


def _rewrite(path: Path, prompts: set[str]) -> None:
    """Other words in the continuations of some prompts: every token that is not in the prompt becomes another one.

    Tokens are repeated where they were, so that the model's laws along the texts still fit.
    """
    frame = pd.read_parquet(path)
    every = np.unique(np.concatenate([*frame["prompt_tokens"], *frame["continuation"]]))
    changed = []
    for row in frame.to_dict("records"):
        text = np.asarray(row["continuation"])
        if row["prompt"] in prompts:
            new = np.setdiff1d(text, row["prompt_tokens"])
            others = np.setdiff1d(every, np.concatenate([text, row["prompt_tokens"]]))[: len(new)]
            named = {
                **{int(token): int(token) for token in text},
                **dict(zip(new.tolist(), others.tolist(), strict=False)),
            }
            text = np.array([named[int(token)] for token in text])
        changed.append(text.tolist())
    frame.assign(continuation=changed).to_parquet(path)


def test_without_prompts_to_choose_by_nothing_is_chosen(tmp_path: Path, small_model: Path) -> None:
    small = {
        "choice_prompts": 0,
        "warm_starts": [0],
        "hazard_rollouts": 0,
        "statistics": ["counts"],
        "alternatives": {},
    }
    done = harness.run(write_config(tmp_path, small_model, **small), out=tmp_path / "run", executor="serial")
    assert not {"training_energy", "chosen_rung"} & set(done.rows["metric"])
    units = [json.loads(path.read_text(encoding="utf-8")) for path in done.path.glob("units/*/unit.json")]
    folds = [unit for unit in units if unit["task"].endswith("units:fold")]
    assert all("choice" not in unit["settings"] for unit in folds)  # as it was before there was a choice
    assert {len(unit["needs"]) for unit in folds} == {3}  # texts of the first seed, laws, base transitions


def test_the_same_config_gives_the_same_rows(run: Any, tmp_path: Path, small_model: Path) -> None:
    again = harness.run(write_config(tmp_path, small_model), out=tmp_path / "run", executor="serial")
    pd.testing.assert_frame_equal(run.rows, again.rows, check_exact=True)


def test_laws_read_again_are_distributions_along_the_text(run: Any) -> None:
    units = {path: json.loads((path / "unit.json").read_text(encoding="utf-8")) for path in run.path.glob("units/*")}
    scores = next(p for p, u in units.items() if u["task"].endswith(":score") and u["settings"]["strategy"] == "greedy")
    texts = next(
        p for p, u in units.items() if u["task"].endswith("continue_prompts") and u["settings"]["strategy"] == "greedy"
    )
    settings = units[scores]["settings"]
    for text in read_scored(texts, scores, settings, settings["neutral"]):
        raw, law = text.laws["raw"], text.laws["decoded"]
        assert (raw.inside[~text.known] == 0).all()
        assert (raw.inside.sum(axis=1) <= 1 + 1e-5).all()
        assert set(np.unique(law.inside)) <= {0.0, 1.0}
        following = text.numbered.local[text.start :]
        old = following < text.numbered.sizes(text.start)
        assert (law.inside[old, following[old]] == 1).all()  # greedy text is its own argmax
        assert (law.inside[~old].sum(axis=1) == 0).all()
        assert law.entropy.max() == 0


def test_the_decoded_law_is_that_of_the_strategy() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(0)) * 2
    p = torch.softmax(logits / 0.7, -1)
    torch.testing.assert_close(decoded(logits, 0.7, {"temperature": 0.7}), p)
    cut = decoded(logits, 0.7, {"temperature": 0.7, "top_k": 3})
    assert ((cut > 0).sum(-1) == 3).all()
    kept = torch.where(cut > 0, p, torch.zeros_like(p))
    torch.testing.assert_close(cut, kept / kept.sum(-1, keepdim=True))
    assert (decoded(logits, None, {}).argmax(-1) == logits.argmax(-1)).all()


def test_strategies_without_a_law_are_refused(tmp_path: Path, small_model: Path) -> None:
    path = write_config(tmp_path, small_model)
    with pytest.raises(UsageError, match=r"strategy greedy,repetition_penalty=1\.2 has repetition_penalty"):
        harness.run(path, out=tmp_path / "run", overrides=["generation.strategies=[{repetition_penalty: 1.2}]"])
    assert not (tmp_path / "run").exists()


def test_a_closed_model_is_refused_for_its_base_and_judged_without_one(tmp_path: Path) -> None:
    given = [f"prompts={shipped_configs() / 'prompts' / 'one-layer.yaml'}", "experiments.repetition.warm_starts=[0]"]
    given += ["experiments.repetition.neutral=['1']", "generation.strategies=[greedy]", "generation.max_new_tokens=16"]
    path = write_config(tmp_path, shipped_configs() / "models" / "one-layer")
    with pytest.raises(UsageError, match=r"gives some tokens no probability.*say base: none"):
        harness.run(path, out=tmp_path / "run", overrides=given, limit=2, executor="serial")
    assert not (tmp_path / "run").exists()
    given += ["experiments.repetition.base=none", "experiments.repetition.removed=false"]
    given += [
        "experiments.repetition.on_policy=0",
        "experiments.repetition.alternatives={}",
        "experiments.repetition.regimes=none",
    ]
    given += ["experiments.repetition.surrogates=[context-logit-closed]"]
    done = harness.run(path, out=tmp_path / "run", overrides=given, limit=2, executor="serial")
    new = done.rows[
        (done.rows["metric"] == "new_tokens") & done.rows["surrogate"].isin(["model", "context-logit-closed"])
    ]
    assert len(new) > 0
    assert new["value"].eq(0).all()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("experiments.repetition.statistics=[counts, colour]", "no statistic is called 'colour'"),
        ("experiments.repetition.statistics=[counts, counts]", "a statistic is named twice"),
        ("experiments.repetition.surrogates=[sufix]", "suffix"),
        ("experiments.repetition.neutral=['']", "neutral contexts are different texts"),
        ("experiments.repetition.laws=[raw]", "removed: true needs context-logit"),
        ("experiments.repetition.alternatives={short: [counts]}", "short has 1 entries and statistics have 2"),
        ("experiments.repetition.alternatives={on policy: [counts, recency]}", "cannot be called 'on policy'"),
        ("experiments.repetition.alternatives={odd: [counts, colour]}", "no statistic is called 'colour'"),
        ("experiments.repetition.margins.seq_rep_4=0", "margins.seq_rep_4"),
        ("experiments.repetition.margins.at={T: {seq_rep_4: .1}}", "'T' is no name of a strategy in rows"),
        ("experiments.repetition.margins.at={greedy: {seq_rep: .1}}", "no margin is called 'seq_rep'"),
        ("experiments.repetition.margins.at={greedy: {above_half: 1.0}}", "the margin of above_half must be above 0"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, small_model: Path, override: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        harness.run(write_config(tmp_path, small_model), out=tmp_path / "run", overrides=[override])
    assert "\n" not in str(error.value)


def test_rungs_are_nested() -> None:
    assert rungs(("counts", "recency+ followed-by-1")) == {
        "counts": ("counts",),
        "recency + followed-by-1": ("counts", "recency", "followed-by-1"),
    }


def test_what_is_left_out_leaves_all_others() -> None:
    assert left_out(("counts", "recency+unigram"), base=True) == {
        "counts": ("recency", "unigram"),
        "recency + unigram": ("counts",),
        "statistics": (),
        "base": ("counts", "recency"),
    }
    assert list(left_out(("counts",), base=False)) == ["counts", "statistics"]


def test_removal_is_no_setting_of_runs_without_it() -> None:
    assert "removed" not in Repetition(kind="repetition").model_dump()
    assert Repetition(kind="repetition", removed=True).model_dump()["removed"] is True
    assert "removed" not in _of_surrogates(Repetition(kind="repetition"))


def test_new_tokens_are_those_not_seen_before() -> None:
    found = figures(np.array([5, 1, 6, 5, 7]), np.array([1, 2]))
    assert found["new_tokens"].value == pytest.approx(3 / 5)
    assert figures(np.array([], dtype=np.int64), np.array([1]))["new_tokens"].value is None
    assert figures(np.array([3] * 40), np.array([1]))["above_half"].value == 1.0
