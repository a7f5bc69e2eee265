"""config.json of a model folder: what the harness chooses is set aside with a note; hostile ones are refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import small_models
import torch

from harness.core.errors import UsageError
from harness.models import loading
from harness.models.first_pass import check_output, wrong_logits


def changed(folder: Path, **values: Any) -> Path:
    path = small_models.save(small_models.llama(1), folder / "model")
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return path


def refusal(path: Path) -> str:
    start = time.monotonic()
    with pytest.raises(UsageError) as caught:
        loading.load_model(path, "cpu")
    assert time.monotonic() - start < 30  # on a busy machine; what is built in vain takes minutes or all memory
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value) or str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("value", ["flash_attention_2", "flash_attention_3", "eager", "paged|sdpa", "someone/kernel"])
def test_an_attention_that_the_config_names_is_set_aside_with_a_note(key: str, value: str, tmp_path: Path) -> None:
    plain = loading.load_model(changed(tmp_path / "plain"), "cpu")
    path = changed(tmp_path, **{key: value})
    ids = torch.arange(2, 12)[None]
    assert torch.equal(loading.load_model(path, "cpu")(ids).logits, plain(ids).logits)
    (note,) = loading.notes_on(path, "cpu")
    assert f'set aside: {key} "{value}"' in note


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": 10**9},
        {"intermediate_size": 10**10},
        {"vocab_size": 10**9},
        {"vocab_size": -1},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "two"},
        {"num_hidden_layers": 1.5},
        {"num_hidden_layers": None},
        {"num_attention_heads": 0},
        {"num_attention_heads": 10**9},
        {"max_position_embeddings": "many"},
        {"head_dim": 10**12},
        {"hidden_act": "../../x"},
        {"model_type": "no-such-model"},
        {"model_type": ["llama"]},
        {"model_type": None},
        {"rope_parameters": {"rope_type": "no-such-rope"}},
        {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}, "model_type": "evil"},
    ],
    ids=lambda values: "-".join(f"{key}={value}" for key, value in values.items())[:60],
)
def test_sizes_and_names_that_are_none(values: dict[str, Any], tmp_path: Path) -> None:
    assert refusal(changed(tmp_path, **values))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", "it is a list, not a mapping"),
        (b"null", "not a mapping"),
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "a is there twice"),
        (b"x" * 1_000_000, "not valid JSON"),
        (b" " * 33_000_000, "too many for a JSON file"),
        (b"{}", "no model_type"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_files_that_hold_no_config(content: bytes, reason: str, tmp_path: Path) -> None:
    path = changed(tmp_path)
    (path / "config.json").write_bytes(content)
    assert reason in refusal(path)


def test_a_config_of_a_megabyte_that_is_one_is_read(tmp_path: Path) -> None:
    path = changed(tmp_path, remark="x" * 1_000_000)
    assert loading.load_model(path, "cpu").config.num_hidden_layers == 1


class Gives(torch.nn.Module):
    """A model whose output is given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.device = torch.device("cpu")
        self.config = small_models.llama(1).config

    def forward(self, ids: torch.Tensor) -> Any:
        return type("Output", (), {"logits": self.logits[None, : ids.shape[1]]})


def test_an_output_that_is_no_distribution_is_named_by_position() -> None:
    for bad in (torch.nan, torch.inf):
        logits = torch.zeros(16, 40)
        logits[3, 7] = bad
        with pytest.raises(UsageError, match=rf"'mine': its output is {bad} for token 7 at position 3 \(1 of 16"):
            check_output(Gives(logits), [], "mine")
    logits = torch.zeros(16, 40)
    logits[5] = -torch.inf
    assert wrong_logits(logits) == "its output gives no token any probability at position 5"
    logits[5, 0] = 0
    assert wrong_logits(logits) is None


def test_a_model_that_overflows_although_its_weights_are_finite(tmp_path: Path) -> None:
    model = small_models.llama(1)
    with torch.no_grad():
        model.lm_head.weight[:] = 3e38
    path = small_models.save(model, tmp_path / "model")
    with pytest.raises(UsageError, match="although its weights are finite"):
        check_output(loading.load_model(path, "cpu"), [2, 3, 4], "mine")
