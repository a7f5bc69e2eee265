"""Repeated sentences to a small model, through the command: run, show, table, resume; and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_models
import torch
import yaml

import harness
from ccmc import CCMC
from harness.data.texts import IntArray
from harness.experiments._shared.continuations import read_continuations
from harness.experiments._shared.loop_arms import read_arm, read_heads
from harness.models import loading, tokenizers
from harness.runs.verify import verify

COMMAND = [sys.executable, "-m", "harness.cli"]
LENGTH, TIMES, PREAMBLE = 5, 4, 6
RUNGS = ("counts", "followed-by-1")


def ccmc(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, check=False, timeout=1200)


@pytest.fixture(scope="module")
def reinforced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a finished run, and of its model."""
    folder = tmp_path_factory.mktemp("reinforced")
    model = small_models.save(small_models.llama(2), folder / "model")
    texts = small_models.random_texts(16, 9)
    prompts = [{"id": f"p{i:02}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    prompts[3]["text"] = "w1 w2"  # too short for a sentence
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    experiment = {
        "kind": "self-reinforcement", "length": LENGTH, "repetitions": TIMES - 1, "preambles": [0, PREAMBLE],
        "neutral": "w0", "surrogates": ["unigram-cache", "suffix", "context-logit", "context-logit-closed"],
        "statistics": list(RUNGS), "chains": ["counts", "in-context-bigram"],
        "head_shares": [0.25], "layers_per_unit": 1, "max_length": 20,
    }  # fmt: skip
    config = {
        "name": "reinforced", "models": [str(model)], "prompts": "prompts.yaml", "held_out": 0.6,
        "generation": {"max_new_tokens": 12, "strategies": [{"temperature": 1.0}], "ignore_eos": True},
        "experiments": [experiment],
    }  # fmt: skip
    (folder / "reinforced.yaml").write_text(yaml.safe_dump(config))
    done = ccmc("run", "reinforced.yaml", "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "closed chain" in done.stdout
    return folder / "run", model


def rows_of(run: Path, metric: str, **factors: Any) -> pd.DataFrame:
    rows = harness.load_run(run).rows
    rows = rows[(rows["metric"] == metric) & (rows["experiment"] == "self-reinforcement")]
    keep = [all(json.loads(text).get(name) == value for name, value in factors.items()) for text in rows["condition"]]
    return rows[keep]


def sentences(run: Path, model: Path) -> tuple[dict[str, IntArray], dict[str, IntArray]]:
    """Prompt -> its natural and its self-written sentence, found from the prompts and the model's continuations."""
    tokenizer, natural, written = tokenizers.load_tokenizer(model), {}, {}
    for prompt in yaml.safe_load((run.parent / "prompts.yaml").read_text()):
        natural[prompt["id"]] = np.array(tokenizer(prompt["text"])["input_ids"][:LENGTH])
    for file in (run / "units").glob("*/trajectories.parquet"):
        for c in read_continuations(file.parent):
            if c.strategy == "greedy":
                written[c.prompt] = c.continuation[:LENGTH]
    return natural, written


def test_curves_are_those_of_the_model(reinforced: tuple[Path, Path]) -> None:
    run, path = reinforced
    model = loading.load_model(path, "cpu")
    natural, written = sentences(run, path)
    for kind, of_kind in (("natural", natural), ("self-written", written)):
        for k in (1, 3):
            found = rows_of(run, "sentence_probability", kind=kind, preamble=0, k=k, position="all")
            found = found[found["surrogate"] == "model"]
            assert len(found) >= 5
            for prompt, value in zip(found["prompt"], found["value"], strict=True):
                ids = np.tile(of_kind[prompt], k + 1)
                with torch.inference_mode():
                    p = torch.softmax(model(torch.as_tensor(ids)[None]).logits[0].double(), -1)
                last = range(k * LENGTH, (k + 1) * LENGTH)
                assert value == pytest.approx(float(np.mean([p[t - 1, ids[t]] for t in last])), abs=1e-5)


def test_a_closed_chain_is_flat_where_the_theory_says_so(reinforced: tuple[Path, Path]) -> None:
    run, path = reinforced
    first = rows_of(run, "probability_slope", preamble=0, position="first")
    first = first[~first["condition"].str.contains('"heads"')]
    flat = first[
        first["surrogate"].isin(["counts", "context-logit-closed"]) & ~first["condition"].str.contains("followed")
    ]
    assert len(flat) > 20
    assert flat["value"].abs().max() < 1e-9
    assert first[first["surrogate"] == "model"]["value"].abs().min() > 1e-6
    natural, _ = sentences(run, path)
    after = rows_of(run, "sentence_probability", kind="natural", preamble=PREAMBLE, position="first", k=2)
    after = after[(after["surrogate"] == "counts") & ~after["condition"].str.contains('"heads"')]
    uniform = CCMC(np.zeros((40, 40)))
    for prompt, value in zip(after["prompt"], after["value"], strict=True):
        sentence = natural[prompt]
        s = np.bincount(sentence, minlength=40)
        possible = []
        for other in yaml.safe_load((run.parent / "prompts.yaml").read_text()):
            ids = tokenizers.load_tokenizer(path)(other["text"])["input_ids"]
            if other["id"] != prompt and len(ids) >= PREAMBLE:
                m0 = np.bincount(ids[:PREAMBLE], minlength=40)
                possible.append(uniform.next_token((m0 + 2 * s).astype(float), int(sentence[-1]))[sentence[0]])
        assert min(abs(value - one) for one in possible) < 1e-9


def test_random_sentences_are_of_tokens_that_training_texts_hold(reinforced: tuple[Path, Path]) -> None:
    """And what cannot be made says why, once per preamble."""
    run, _ = reinforced
    rows = harness.load_run(run).rows
    missing = rows[(rows["metric"] == "probability_slope") & rows["value"].isna()]
    prompts = {prompt["id"] for prompt in yaml.safe_load((run.parent / "prompts.yaml").read_text())}
    held = set(rows[rows["split"] == "held_out"]["prompt"].dropna())
    assert held < prompts
    if "p03" in held:
        assert set(missing["prompt"]) == {"p03"}
        assert set(missing["missing"]) == {f"the prompt has fewer than {LENGTH} tokens"}
        assert len(missing) == 2
    # a token is as likely to unigram-cache, before any context holds it, as training texts say; never nothing
    cache = rows_of(run, "sentence_probability", kind="random", preamble=PREAMBLE, k=0, position="first")
    assert (cache[cache["surrogate"] == "unigram-cache"]["value"] > 0).all()


def test_all_arms_are_on_the_same_sentences(reinforced: tuple[Path, Path]) -> None:
    found = rows_of(reinforced[0], "probability_slope", position="all")
    found = found[found["value"].notna()]
    sets: dict[tuple[str, str, int], set[tuple[str, str, int]]] = {}
    for row in found.to_dict("records"):
        at = json.loads(row["condition"])
        arm = row["surrogate"], at.get("rung", ""), at.get("heads", 0)
        sets.setdefault(arm, set()).add((row["prompt"], at["kind"], at["preamble"]))
    logits = [(name, rung, 0) for name in ("context-logit", "context-logit-closed") for rung in RUNGS]
    alone = [(name, "", 0) for name in ("model", "counts", "in-context-bigram", "unigram-cache", "suffix")]
    assert set(sets) == {*logits, *alone, ("counts", "", 3), ("pccmc-weights", "", 3)}
    assert all(one == sets["model", "", 0] for one in sets.values())


def test_replaced_heads_have_the_curves_of_the_model_that_runs_with_them(reinforced: tuple[Path, Path]) -> None:
    """The best quarter of the heads, again from what the fits left; counts in the same heads are something else."""
    run, path = reinforced
    model = loading.load_model(path, "cpu")
    folders = [folder for folder in sorted((run / "units").iterdir()) if folder.is_dir()]
    order = sorted((h for h in read_heads(folders) if h["layer"] > 0), key=lambda one: one["kl"]["pccmc-weights"])
    heads = [(one["layer"], one["head"]) for one in order[:3]]
    longest = PREAMBLE + LENGTH * TIMES
    natural, _ = sentences(run, path)
    for name in ("pccmc-weights", "counts"):
        arm = read_arm(model, folders, name, longest, "pccmc-weights")
        found = rows_of(run, "sentence_probability", kind="natural", preamble=0, k=2, position="all", heads=3)
        found = found[found["surrogate"] == name]
        assert len(found) >= 5
        for prompt, value in zip(found["prompt"], found["value"], strict=True):
            ids = torch.as_tensor(np.tile(natural[prompt], 3))
            with torch.inference_mode():
                plain = torch.softmax(model(ids[None]).logits[0].double(), -1)
                with arm.replacing(heads, "leader"):
                    p = torch.softmax(model(ids[None]).logits[0].double(), -1)
            last = range(2 * LENGTH, 3 * LENGTH)
            assert value == pytest.approx(float(np.mean([p[t - 1, ids[t]] for t in last])), abs=1e-5)
            assert float((p - plain).abs().max()) > 1e-4


def test_the_run_is_shown_and_tabled(reinforced: tuple[Path, Path]) -> None:
    run, _ = reinforced
    shown = ccmc("show", str(run), "--all", "--format", "markdown", cwd=run)
    assert shown.returncode == 0, shown.stderr
    for title in (
        "How likely is a repeated sentence",
        "Could a closed chain",
        "Which surrogate has the curve",
        "Where in the",
    ):
        assert title in shown.stdout
    table = ccmc("table", str(run), "--rows", "surrogate", "--columns", "metric", "--metric", "winning_rate", cwd=run)
    assert table.returncode == 0, table.stderr
    assert "suffix" in table.stdout
    assert list(verify(run).problems) == []
    assert len(list((run / "plots").glob("self-reinforcement-*.svg"))) == 2


def test_a_run_with_a_limit_is_complete_and_goes_on(reinforced: tuple[Path, Path], tmp_path: Path) -> None:
    folder, out = reinforced[0].parent, str(tmp_path / "again")
    limited = ("run", "reinforced.yaml", "--limit", "1", "--out", out)
    done = ccmc(*limited, cwd=folder)
    assert done.returncode == 0, done.stderr
    before = {unit.name for unit in (tmp_path / "again" / "units").iterdir() if unit.is_dir()}
    assert len(before) == 8  # texts twice, fits of two layers, model, surrogates, two arms
    assert "no other held-out prompt" in " ".join(harness.load_run(out).rows["missing"].dropna())
    again = ccmc(*limited, cwd=folder)
    assert again.returncode == 0
    assert {unit.name for unit in (tmp_path / "again" / "units").iterdir() if unit.is_dir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("experiments.self-reinforcement.repetitions=80", "reads 256"),
        ("experiments.self-reinforcement.chains=[conts]", "counts"),
        ("experiments.self-reinforcement.surrogates=[counts]", "unknown surrogate"),
        ("experiments.self-reinforcement.heads=[pcmc-weights]", "pccmc-weights"),
    ],
)
def test_wrong_settings_are_one_line(reinforced: tuple[Path, Path], change: str, message: str, tmp_path: Path) -> None:
    done = ccmc("run", "reinforced.yaml", "--set", change, "--out", str(tmp_path / "no"), cwd=reinforced[0].parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
