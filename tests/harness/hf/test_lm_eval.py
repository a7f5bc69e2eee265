"""lm-evaluation-harness itself on a chain: its perplexity is ours, and `ccmc lm-eval` finds the classes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import harness.hf  # noqa: F401 - registers
from ccmc import CCMC, BaseTransition, ContextLogit
from harness.cli.app import invoke
from harness.hf import CCMCForCausalLM
from harness.models.text_models import text_tokenizer

TEXTS = [f"Number {i} is followed by number {i + 1}, and number {i + 1} by {i + 2}." for i in range(12)]
pytestmark = pytest.mark.filterwarnings("default")  # of a package that is not ours


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made = text_tokenizer(TEXTS, 280)
    made.add_special_tokens({"eos_token": "<end>", "pad_token": "<end>"})
    return made


@pytest.fixture(scope="module")
def logit(tokenizer: Any) -> ContextLogit:
    p = np.random.default_rng(0).dirichlet(np.full(len(tokenizer), 0.5), len(tokenizer)) + 1e-4
    base = BaseTransition.from_rows(np.arange(len(p)), p / p.sum(axis=1, keepdims=True), top=20)
    return ContextLogit({"base": 0.7, "present": 1.0, "log-count": 0.5, "followed-by-1": 2.0}, base)


@pytest.fixture(scope="module")
def folder(tokenizer: Any, logit: ContextLogit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("chain")
    CCMCForCausalLM.from_context_logit(logit, eos_token_id=tokenizer.eos_token_id).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def ours(logit: ContextLogit, tokenizer: Any) -> list[float]:
    """Sum of log probabilities of each text, after one token that ends texts."""
    return [
        float(logit.log_probabilities([tokenizer.eos_token_id, *tokenizer.encode(text)], 1).sum()) for text in TEXTS
    ]


def test_log_likelihoods_are_ours(folder: Path, logit: ContextLogit, tokenizer: Any) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(folder), device="cpu", batch_size=4)
    requests = [Instance("loglikelihood_rolling", {}, (text,), index) for index, text in enumerate(TEXTS)]
    found = model.loglikelihood_rolling(requests, disable_tqdm=True)
    assert found == pytest.approx(ours(logit, tokenizer), rel=1e-5)


def test_a_task_on_the_command_line(
    folder: Path, logit: ContextLogit, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    task = {
        "task": "numbers", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }  # fmt: skip
    (tmp_path / "numbers.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    arguments = ["--tasks", "numbers", "--include_path", str(tmp_path), "--device", "cpu"]
    assert invoke(["lm-eval", str(folder), *arguments, "--output_path", str(tmp_path / "out")]) == 0
    written = json.loads(next((tmp_path / "out").rglob("results*.json")).read_text(encoding="utf-8"))
    size = sum(len(text.encode()) for text in TEXTS)
    expected = -sum(ours(logit, tokenizer)) / size / math.log(2)
    assert written["results"]["numbers"]["bits_per_byte,none"] == pytest.approx(expected, rel=1e-5)


def test_what_is_closed_says_so_before(tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    chain = CCMC(np.zeros((len(tokenizer), len(tokenizer))))
    CCMCForCausalLM.from_chain(chain).save_pretrained(tmp_path / "closed")
    invoke(["lm-eval", str(tmp_path / "closed"), "--tasks", "no-such-task-at-all"])
    assert "closed: tokens outside the context get -inf" in capsys.readouterr().err
    assert invoke(["lm-eval", str(tmp_path), "--tasks", "x"]) == 2
    assert "no model of transformers" in capsys.readouterr().err
