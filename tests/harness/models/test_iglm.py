"""IgLM: the files of its wheel become a model and a tokenizer that agree."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_models
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from harness.config.load import shipped_configs
from harness.config.reading import read_yaml
from harness.models import catalogue, loading, tokenizers
from harness.models.cache import file_sha256
from harness.models.language_model import generate
from harness.models.sources import iglm

NAMES = ("CAMEL", "HUMAN", "MOUSE", "RABBIT", "RAT", "RHESUS", "HEAVY", "LIGHT")
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"ACDEFGHIKLMNPQRSTVWY", *(f"[{name}]" for name in NAMES)]


def old_config(**changes: Any) -> dict[str, Any]:
    small = {"n_embd": 8, "n_head": 2, "n_layer": 2, "n_positions": 64, "vocab_size": 33, "model_type": "gpt2"}
    return {**small, "bos_token_id": 50256, "eos_token_id": 50256, **changes}


def old_files(folder: Path) -> dict[str, torch.Tensor]:
    """The files as the wheel holds them, of a random model; returns its weights."""
    torch.manual_seed(0)
    plain = {k: v for k, v in old_config().items() if not k.endswith("token_id")}
    state = GPT2LMHeadModel(GPT2Config(**plain, bos_token_id=None, eos_token_id=3)).state_dict()
    masks = {f"transformer.h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(2)}
    (folder / "IgLM").mkdir(parents=True)
    torch.save({**state, **masks}, folder / "IgLM" / "pytorch_model.bin")
    (folder / "IgLM" / "config.json").write_text(json.dumps(old_config()))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return state


@pytest.fixture
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, torch.Tensor]]:
    """A wheel with a random model, pulled under the alias iglm."""
    monkeypatch.setenv("CCMC_CACHE", str(tmp_path / "cache"))
    state = old_files(tmp_path / "trained_models")
    wheel = tmp_path / "iglm-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in (tmp_path / "trained_models").rglob("*.*"):
            archive.write(file, f"iglm/{file.relative_to(tmp_path).as_posix()}")
    weights = file_sha256(tmp_path / "trained_models" / "IgLM" / "pytorch_model.bin")
    source = replace(iglm.iglm(), wheel_sha256=file_sha256(wheel), member_sha256=weights)
    monkeypatch.setattr(iglm, "iglm", lambda: source)
    return catalogue.pull("iglm", lambda share, what: None, wheel), state


def test_the_pulled_model_is_the_one_in_the_wheel(pulled: Any) -> None:
    folder, state = pulled
    model = loading.load_model(folder, "cpu")
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, [2, 3], 0)
    assert catalogue.resolve("iglm", lambda share, what: None).revision == "0.1.0"


def test_the_tokenizer_knows_every_name_and_residue(pulled: Any) -> None:
    tokenizer = tokenizers.load_tokenizer(pulled[0])
    assert small_models.read(tokenizer, "[HEAVY][HUMAN]EVQ") == [VOCABULARY.index(t) for t in
                                                              ("[HEAVY]", "[HUMAN]", "E", "V", "Q")]  # fmt: skip
    assert small_models.read(tokenizer, "".join(VOCABULARY), special_strings="parse") == list(range(33))
    assert tokenizer.decode([31, 26, 8, 22, 18]) == "[HEAVY][HUMAN]EVQ"


def test_both_end_tokens_end_a_sequence(pulled: Any) -> None:
    model, tokenizer = loading.load_model(pulled[0], "cpu"), tokenizers.load_tokenizer(pulled[0])
    prompts = [[31, 26, 5 + number % 20, 5 + number // 20] for number in range(40)]
    made = generate(model, tokenizer, prompts, temperature=1.0, max_new_tokens=40, seed=0)
    assert min(len(c) for c in made) < 40
    assert not any({2, 3} & set(c.tolist()) for c in made)


def test_weights_that_do_not_fill_the_model_are_refused(tmp_path: Path) -> None:
    old_files(tmp_path / "files")
    weights = tmp_path / "files" / "IgLM" / "pytorch_model.bin"
    (weights.parent / "vocab.txt").write_text("A")
    state = torch.load(weights, weights_only=True)
    del state["transformer.wte.weight"]
    torch.save(state, weights)
    with pytest.raises(ValueError, match=r"missing \['transformer\.wte\.weight'\]"):
        iglm.convert(weights, tmp_path / "out")


def test_antibody_prompts_are_made_of_known_tokens(pulled: Any) -> None:
    tokenizer = tokenizers.load_tokenizer(pulled[0])
    prompts = read_yaml(shipped_configs() / "prompts" / "antibodies.yaml")
    assert {prompt["kind"] for prompt in prompts} == {"heavy", "light"}
    for prompt in prompts:
        ids = small_models.read(tokenizer, prompt["text"])
        assert len(ids) == 5
        assert 1 not in ids
