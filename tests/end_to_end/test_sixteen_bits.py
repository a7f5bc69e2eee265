"""Models in 16 bits: every experiment reads them, statistics stay near those of the same model in 32 bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small_models
import torch
import yaml

import harness
from harness.core.errors import UsageError
from harness.models import loading

EXPERIMENTS: list[dict[str, Any]] = [
    {
        "kind": "heads",
        "layers_per_unit": 3,
        "surrogates": ["counts", "distance", "pccmc-weights", "ccmc-fit", "pccmc-fit", "exact-keys", "exact-queries"],
    },
    {"kind": "generation", "rollout_seeds": 1, "surrogates": ["counts", "bigram", "ccmc-fit"]},
    {
        "kind": "in-the-loop", "surrogates": ["exact-keys", "pccmc-weights", "pccmc-scaled"],
        "leaders": ["pccmc-scaled"],
        "nulls": ["counts"], "controls": ["mean-output"], "sets": ["share"], "shares": [0.5, 1.0], "generate": [0.5],
        "alone_map": True, "alone_texts": 1, "training_texts": 2, "max_length": 24, "layers_per_unit": 3,
    },
    {
        "kind": "repetition", "statistics": ["counts", "followed-by-1"], "neutral": ["w0"], "rollout_seeds": 1,
        "surrogates": ["unigram", "context-logit"], "choice_prompts": 0,
    },
    {
        "kind": "self-reinforcement", "length": 4, "repetitions": 2, "preambles": [0], "neutral": "w0",
        "max_length": 20, "surrogates": ["suffix"], "chains": ["counts"], "statistics": ["counts"],
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("halves")
    small_models.save(small_models.llama(3), made / "model")
    return made


def run(folder: Path, dtype: str, experiments: list[dict[str, Any]]) -> Any:
    texts = small_models.random_texts(12, 12)
    prompts = [{"id": f"p{i:02}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts), encoding="utf-8")
    config = {
        "name": "halves", "models": [str(folder / "model")], "prompts": str(folder / "prompts.yaml"), "held_out": 0.34,
        "dtype": dtype, "experiments": experiments,
        "generation": {"max_new_tokens": 12, "batch_size": 5, "ignore_eos": True, "seeds": 1,
                       "strategies": ["greedy", {"temperature": 1.0}]},
    }  # fmt: skip
    return harness.run(config, out=folder / f"{dtype}-{len(experiments)}", executor="serial")


def test_every_experiment_reads_a_model_in_16_bits(folder: Path) -> None:
    rows = run(folder, "bfloat16", EXPERIMENTS).rows
    assert {one["kind"] for one in EXPERIMENTS} <= set(rows["experiment"])
    for kind, metric in (("heads", "kl"), ("in-the-loop", "nats_lost"), ("generation", "seq_rep_4")):
        assert rows.loc[(rows["experiment"] == kind) & (rows["metric"] == metric), "value"].notna().any()


def test_figures_of_heads_are_near_those_in_32_bits(folder: Path) -> None:
    heads = [EXPERIMENTS[0]]
    found = {dtype: run(folder, dtype, heads) for dtype in ("float32", "bfloat16")}
    keys = ["layer", "head", "surrogate", "prompt", "strategy"]
    tables = {}
    for dtype, one in found.items():
        of = one.rows[(one.rows["metric"] == "kl") & one.rows["value"].notna()]
        tables[dtype] = of.groupby(["layer", "head", "surrogate"])["value"].mean()
    both = pd.concat(tables, axis=1)
    assert len(both) and both.notna().all(axis=None), keys
    # texts of the two differ too, as greedy tokens may: means over heads are compared, not single rows
    by_surrogate = both.groupby("surrogate").mean()
    assert (by_surrogate["bfloat16"] - by_surrogate["float32"]).abs().max() < 0.05 * by_surrogate[
        "float32"
    ].max() + 0.02
    units = {dtype: {unit["key"] for unit in one.manifest["units"]} for dtype, one in found.items()}
    assert not units["float32"] & units["bfloat16"]  # nothing of one is taken for the other
    settings = [json.loads(file.read_text()) for file in (found["bfloat16"].path / "units").glob("*/unit.json")]
    assert all(one["settings"]["dtype"] == "bfloat16" for one in settings)


def test_weights_are_in_16_bits_and_rotations_are_not(folder: Path) -> None:
    model = loading.load_model(folder / "model", "cpu", dtype="bfloat16")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}
    assert loading.load_model(folder / "model", "cpu").dtype == torch.float32


def test_weights_that_16_bits_do_not_hold_are_refused(tmp_path: Path) -> None:
    model = small_models.llama(2)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = 1e5
    small_models.save(model, tmp_path / "large")
    with pytest.raises(UsageError, match=r"up_proj\.weight has 1 of .* infinite as float16"):
        loading.load_model(tmp_path / "large", "cpu", dtype="float16")
    loading.load_model(tmp_path / "large", "cpu", dtype="bfloat16")


def test_other_numbers_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="dtype"):
        run(folder, "int8", EXPERIMENTS[:1])
