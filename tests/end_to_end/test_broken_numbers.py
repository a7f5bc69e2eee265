"""A model whose weights are finite and whose output is not, for one token only: units fail and say for which text."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import small_models
import torch
import yaml
from transformers import GPT2Config, GPT2LMHeadModel

from harness.cli.app import invoke

TRIED = {place * 7 % small_models.VOCAB_SIZE for place in range(24)}  # in what is tried before a run begins
BAD = max(set(range(2, small_models.VOCAB_SIZE)) - TRIED)
SIZES = {"n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in which the mean over one embedding overflows, and a config with prompts of which one has that token."""
    found = tmp_path_factory.mktemp("broken")
    torch.manual_seed(0)
    ids = {"vocab_size": small_models.VOCAB_SIZE, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    model = GPT2LMHeadModel(GPT2Config(**SIZES, **ids, tie_word_embeddings=False))
    small_models.perturb(model, 0.3)
    with torch.no_grad():
        model.transformer.wte.weight[BAD] = 3e38
    small_models.save(model.eval(), found / "model")
    texts = [" ".join(f"w{(7 * i + 3 * j) % 20}" for j in range(8)) for i in range(6)]
    texts[4] = f"w1 w2 w{BAD - 2} w3"
    config = {
        "name": "broken",
        "models": [str(found / "model")],
        "prompts": [{"id": f"p{i}", "kind": "a", "text": text} for i, text in enumerate(texts)],
        "held_out": 0.5,
        "generation": {"max_new_tokens": 4, "strategies": ["greedy", {"temperature": 1.0}], "ignore_eos": True},
        "experiments": [
            {"kind": "equivalence", "vocab_size": 4, "dimensions": [4], "repetitions": 1},
            {"kind": "heads", "layers": [0], "surrogates": ["counts"]},
        ],
    }
    (found / "broken.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return found


def test_a_unit_of_numbers_that_are_none_fails_and_names_the_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert invoke(["run", "broken.yaml", "--out", "run"]) == 3
    said = capsys.readouterr()
    (line,) = [one for one in said.err.splitlines() if one.startswith("ccmc: ")]
    assert f"model '{folder / 'model'}', prompt 'p4': the model gives no probabilities for token 0 of its text" in line
    assert "Traceback" not in said.err
    manifest = json.loads(Path("run", "manifest.json").read_text(encoding="utf-8"))
    errors = {failure["error"].split(":")[0] for failure in manifest["failures"]}
    assert len(manifest["failures"]) == len(manifest["units"]) - 2  # the chains need no model
    assert any("'p4'" in error for error in errors)
    stored = [pd.read_parquet(file) for file in Path("run").glob("units/*/rows.parquet")]
    assert len(stored) == 2
    assert not any(frame["value"].isna().any() for frame in stored)
