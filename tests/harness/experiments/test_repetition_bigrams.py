"""Bigrams of training texts as base transitions: no text sees its own counts, and fits are those of dense matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import torch
import yaml
from dense_bigram import dense_bigram
from safetensors.numpy import load_file
from scipy.optimize import minimize

import harness
from ccmc import ContextLogit
from ccmc.base import BaseTransition
from harness.core import registry
from harness.core.errors import UsageError
from harness.experiments._shared.continuations import read_continuations
from harness.experiments.repetition.bigrams import Bigrams
from harness.experiments.repetition.scores import FILE, decoded
from harness.experiments.repetition.tables import tables
from harness.surrogates.vocabulary_base import Law, ScoredText, VocabularyObservations

V = small_models.VOCAB_SIZE
NEUTRAL = "w0 w1"


def made(folds: list[int], size: int = 10) -> tuple[Bigrams, list[tuple[str, str, int, np.ndarray]]]:
    """Two texts of each group; the groups have the folds that are given."""
    rng = np.random.default_rng(0)
    texts = [(f"p{k}{half}", f"g{k}", fold, rng.integers(0, size, 15)) for k, fold in enumerate(folds) for half in "ab"]
    return Bigrams(texts, size, 4), texts


@pytest.mark.parametrize("folds", [[0, 1, 2, 3, 4] * 3, [0, 1] * 4, [0, 0, -1, -1, -1], [0, 1, 2, -1] * 2])
def test_no_text_sees_counts_of_its_own(folds: list[int]) -> None:
    bigrams, texts = made(folds)
    every = {prompt for prompt, _, _, _ in texts}
    for judged in sorted(set(folds) - {-1}):
        group = {prompt: name for prompt, name, _, _ in texts}
        in_fold = {prompt for prompt, _, fold, _ in texts if fold == judged}
        assert bigrams.counted(judged) == every - in_fold
        for prompt, own, _, _ in texts:
            if prompt in in_fold:
                with pytest.raises(ValueError, match="which is not fitted to it"):
                    bigrams.to_fit(judged, prompt)
                continue
            seen = bigrams.counted(judged, prompt)
            assert seen
            assert seen.isdisjoint(in_fold)
            assert own not in {group[other] for other in seen}
    assert set(bigrams.along("p0a")) == {f"bigram/{fold}" for fold in sorted(set(folds) - {-1, folds[0]})}


def test_five_folds_have_fifteen_bigrams() -> None:
    bigrams, texts = made([0, 1, 2, 3, 4] * 2)
    for judged in range(5):
        bigrams.to_judge(judged)
        for prompt, _, fold, _ in texts:
            if fold != judged:
                bigrams.to_fit(judged, prompt)
    assert len(bigrams._made) == 5 + 5 * 4 // 2
    for prompts, base in bigrams._made.items():
        expected = dense_bigram([tokens for prompt, _, _, tokens in texts if prompt in prompts], 10)
        kept = base.tokens
        for query in np.flatnonzero(base.row >= 0):
            row = np.exp(base.log_row(int(query)))
            np.testing.assert_allclose(row[kept[base.row[query]]], expected[query, kept[base.row[query]]], rtol=1e-10)


def test_the_fit_is_that_of_dense_bigrams() -> None:
    """The cross-entropy over all tokens, each text under its own dense P0, is least at the fitted weights."""
    size, start, rng = 8, 4, np.random.default_rng(1)
    names, folds = ("base", "present", "log-count", "recency"), [0, 1, 2] * 2
    tokens = [np.resize(rng.integers(0, size, 6), 16) for _ in folds]
    bigrams = Bigrams([(f"p{k}", f"g{k}", fold, tokens[k]) for k, fold in enumerate(folds)], size, size)
    train = [k for k, fold in enumerate(folds) if fold != 0]
    dense = {k: dense_bigram([tokens[o] for o in train if folds[o] != folds[k]], size) for k in train}
    laws, texts = {k: rng.dirichlet(np.ones(size), 16 - start) for k in train}, []
    for k in train:
        text = ScoredText(f"p{k}", f"g{k}", folds[k], tokens[k], start, {})
        inside = np.where(text.known, laws[k][:, text.numbered.types], 0.0)
        expected = (laws[k] * np.log(dense[k][tokens[k][start - 1 : -1]])).sum(axis=1)
        law = Law(inside, np.zeros(12), np.zeros(12), {"bigram": expected})
        texts.append(ScoredText(text.prompt, text.group, text.fold, text.tokens, start, {"decoded": law}))
    of_texts = {"bigram": [bigrams.to_fit(0, text.prompt) for text in texts]}
    known = {"bigram": bigrams.to_judge(0)}
    surrogate = registry.surrogate("context-logit", "vocabulary")(("counts", "recency"), "bigram", ridge=0.1)
    surrogate.fit(VocabularyObservations(texts, "decoded", known, size, of_texts))

    def loss(w: np.ndarray) -> float:
        total = 0.0
        for k in train:
            model = ContextLogit(dict(zip(names, w.tolist(), strict=True)), BaseTransition.from_transition(dense[k]))
            q = model.next_token([tokens[k][:n] for n in range(start, 16)])
            total -= float((laws[k] * np.log(q)).sum())
        return total

    def penalised(w: np.ndarray) -> float:
        return loss(w) + 0.05 * float(((w - np.array([1.0, 0, 0, 0])) ** 2).sum())

    best = minimize(penalised, np.array([1.0, 0, 0, 0]), tol=1e-12)
    found = np.array([surrogate.weights_[name] for name in names])
    np.testing.assert_allclose(found, best.x, atol=2e-4)  # features are float32
    assert surrogate.loss_ == pytest.approx(loss(found) / (12 * len(train)), rel=1e-5)
    assert surrogate.model_.base is known["bigram"]  # judged with the counts of all training texts


def write_config(folder: Path, model: Path, **changes: Any) -> Path:
    texts = small_models.random_texts(9, 12)
    prompts = [{"id": f"p{i}", "kind": "a", "text": text, "group": f"g{i // 2}"} for i, text in enumerate(texts)]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts), encoding="utf-8")
    experiment = {"kind": "repetition", "neutral": [NEUTRAL], "statistics": ["counts"], "rollout_seeds": 1}
    experiment |= {"base": "best", "surrogates": ["bigram", "context-logit"], "laws": ["decoded", "raw"], **changes}
    config = {
        "name": "bigrams", "models": [str(model)], "prompts": "prompts.yaml", "folds": 3, "experiments": [experiment],
        "generation": {"max_new_tokens": 30, "strategies": [{"temperature": 0.8}], "ignore_eos": True},
    }  # fmt: skip
    path = folder / "bigrams.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bigrams")


@pytest.fixture(scope="module")
def run(folder: Path, small_model: Path) -> Any:
    return harness.run(write_config(folder, small_model), out=folder / "best", executor="serial")


def unit(run: Any, task: str) -> tuple[Path, dict[str, Any]]:
    """Folder and settings of the first unit of a task."""
    units = ((path, json.loads((path / "unit.json").read_text(encoding="utf-8"))) for path in run.path.glob("units/*"))
    return next((path, one["settings"]) for path, one in units if one["task"].endswith(task))


def test_expected_logs_are_sums_over_the_vocabulary_of_the_bigram_without_both_folds(run: Any, small_model: Path):
    from harness.models.loading import load_model

    model = load_model(small_model, "cpu")
    scores, settings = unit(run, "scores:score")
    texts = read_continuations(unit(run, "continue_prompts")[0])
    arrays, at, folds = load_file(scores / FILE), 0, settings["folds"]
    assert arrays["vocab_size"].tolist() == [V]
    for c in texts:
        start, rows = len(c.prompt_tokens), slice(at, at + len(c.continuation))
        with torch.inference_mode():
            logits = model(torch.as_tensor(c.tokens)[None]).logits[0, start - 1 : -1].float()
        laws = {"raw": torch.softmax(logits, -1), "decoded": decoded(logits, 0.8, {})}
        for judged in range(3):
            for law, p in laws.items():
                found = arrays[f"{law}/log_base/bigram/{judged}"][rows]
                if judged == folds[c.prompt]:
                    assert np.isnan(found).all()
                    continue
                counted = [o.tokens for o in texts if folds[o.prompt] not in (judged, folds[c.prompt])]
                log = np.log(dense_bigram(counted, V)[c.tokens[start - 1 : -1]])
                np.testing.assert_allclose(found, (p.double().numpy() * log).sum(axis=1), rtol=1e-5)
        at += len(c.continuation)


def test_judged_texts_are_predicted_by_the_bigram_without_their_fold(run: Any, folder: Path, small_model: Path):
    done = harness.run(write_config(folder, small_model, base="bigram"), out=folder / "bigram", executor="serial")
    texts = read_continuations(unit(done, "continue_prompts")[0])
    folds = unit(done, "units:fold")[1]["folds"]
    rows = done.rows[(done.rows["metric"] == "log_loss") & (done.rows["surrogate"] == "bigram")]
    for c in texts:
        p0 = dense_bigram([other.tokens for other in texts if folds[other.prompt] != folds[c.prompt]], V)
        expected = -np.log(p0[c.tokens[len(c.prompt_tokens) - 1 : -1], c.continuation]).mean()
        values = rows[rows["prompt"] == c.prompt]["value"]
        assert len(values) == 2  # by law
        np.testing.assert_allclose(values.astype(float), expected, rtol=1e-9)
    assert not any(path for path in done.path.glob("units/*/base.safetensors"))  # nothing is read off the model
    weights = done.rows[(done.rows["metric"] == "weight") & done.rows["condition"].str.contains('"weight": "base"')]
    assert len(weights) == 3 * 2
    chosen = done.rows[done.rows["metric"] == "base_chosen"]
    assert chosen["value"].eq(1).all()
    both = run.rows[run.rows["metric"] == "base_loss"].set_index(["fold", "condition"])["value"].sort_index()
    own = done.rows[done.rows["metric"] == "base_loss"].set_index(["fold", "condition"])["value"].sort_index()
    assert both[both.index.isin(own.index)].equals(own)


def test_the_best_base_has_the_least_loss_on_training_texts(run: Any) -> None:
    rows = run.rows[run.rows["metric"].isin(["base_loss", "base_chosen"])]
    assert rows["split"].eq("train").all()
    wide = rows.pivot(index=["fold", "condition"], columns="metric", values="value").reset_index()
    assert {json.loads(text)["base"] for text in wide["condition"]} == {NEUTRAL, "bigram"}
    for _, fold in wide.groupby("fold"):
        assert fold["base_chosen"].sum() == 1
        assert fold.loc[fold["base_chosen"] == 1, "base_loss"].item() == fold["base_loss"].min()
    (table,) = [one for one in tables(run.rows) if one.name == "repetition.bases"]
    means, chosen = wide.groupby("condition")["base_loss"].mean(), wide.groupby("condition")["base_chosen"].sum()
    lines = {name: (loss, folds) for name, loss, folds in table.rows}
    for name, base in ((f"model's, after {NEUTRAL!r}", NEUTRAL), ("bigram of training texts", "bigram")):
        condition = json.dumps({"base": base})
        assert lines[name] == (pytest.approx(means[condition]), f"{int(chosen[condition])} of 3")


@pytest.mark.parametrize("text", ["bigram", "none", "bigram/0"])
def test_neutral_contexts_have_names_of_their_own(tmp_path: Path, small_model: Path, text: str) -> None:
    with pytest.raises(UsageError, match="a neutral context cannot be"):
        harness.run(write_config(tmp_path, small_model, neutral=[text]), out=tmp_path / "run")
