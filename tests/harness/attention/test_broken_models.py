"""Models that are broken in one place: refused in one line that names layer, head and position."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import small_models
import torch
import transformers
import yaml
from transformers.models.llama import modeling_llama

from harness.attention import capture
from harness.attention.eager import check_capture, check_masks, check_rows
from harness.cli.app import invoke
from harness.core.errors import UsageError

EAGER = modeling_llama.eager_attention_forward
Fault = Callable[[torch.Tensor], torch.Tensor | None]


def broken(monkeypatch: pytest.MonkeyPatch, layer: int, fault: Fault) -> Any:
    """A small model whose eager attention is at fault in one layer."""

    def attend(module: Any, *arguments: Any, **options: Any) -> Any:
        output, weights = EAGER(module, *arguments, **options)
        return output, fault(weights) if module.layer_idx == layer else weights

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", attend)
    return small_models.llama(2)


def changed(head: int, query: int, key: int, by: Callable[[float], float]) -> Fault:
    def fault(weights: torch.Tensor) -> torch.Tensor:
        weights = weights.clone()
        weights[0, head, query, key] = by(float(weights[0, head, query, key]))
        return weights

    return fault


def leaking(weights: torch.Tensor) -> torch.Tensor:
    """Head 4 gives a fifth of position 6 to position 9."""
    weights = weights.clone()
    weights[0, 4, 6] *= 0.8
    weights[0, 4, 6, 9] = 0.2
    return weights


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (changed(2, 5, 3, lambda _: float("nan")), "layer 1, head 2, position 5: the attention is not a number"),
        (leaking, "layer 1, head 4, position 6: attention of 0.2 on the future"),
        (changed(3, 7, 7, lambda value: value + 0.25), "layer 1, head 3, position 7: attention sums to 1.25, not to 1"),
        (changed(0, 2, 1, lambda value: -0.5), "layer 1, head 0, position 2: attention of -0.5 is below 0"),
        (lambda weights: None, "transformers returned the attention of 1 of 2 layers, and none of layer 1"),
        (lambda weights: weights.flip(1), "layer 1, head 0, position 1: rows of attention differ"),
    ],
)
def test_broken_attention_is_named(fault: Fault, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as caught:
        check_capture(broken(monkeypatch, 1, fault), "broken")
    assert message in str(caught.value)
    assert "'broken'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sound_model_passes() -> None:
    check_capture(small_models.llama(2), "sound")
    check_rows(torch.eye(3)[None].repeat(2, 1, 1), 0)


def test_no_attentions_at_all_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under sdpa transformers gives an empty tuple and no error."""
    model = small_models.llama(2)
    original = type(model).set_attn_implementation
    instead = {"eager": "sdpa"}
    monkeypatch.setattr(
        type(model), "set_attn_implementation", lambda self, name: original(self, instead.get(name, name))
    )
    with pytest.raises(UsageError, match="transformers returned the attention of 0 of 2 layers, and none of layer 0"):
        check_capture(model, "quiet")


def saved(folder: Path, model: Any) -> Path:
    """A config that reads heads of a model on documents."""
    small_models.save(model, folder / "model")
    texts = small_models.random_texts(8, 30)
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    experiment = {
        "kind": "heads",
        "surrogates": ["counts", "ccmc-weights"],
        "max_length": 24,
        "texts": {"dataset": "d.jsonl"},
    }
    config = {"name": "broken", "models": [str(folder / "model")], "experiments": [experiment]}
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return folder / "c.yaml"


def test_weights_that_are_not_numbers_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_models.llama(2)
    model.model.layers[1].self_attn.q_proj.weight[3 * 8] = torch.nan  # the first channel of head 3
    config = saved(tmp_path, model)
    capsys.readouterr()
    assert invoke(["run", str(config), "--out", str(tmp_path / "run")]) == 2
    errors = capsys.readouterr().err
    assert "model.layers.1.self_attn.q_proj.weight has 48 of 2,304 numbers that are NaN or infinite" in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_rotation_that_changes_with_the_length_of_a_text_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With texts on both sides of that length layer 0 would be matched on one side only."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    sizes = {**families.GROUPED, "num_hidden_layers": 2, "original_max_position_embeddings": 20}
    config = transformers.Phi3Config(**sizes, rope_parameters={**rope, "original_max_position_embeddings": 20})
    model = families.build(lambda: config)
    run = ["run", str(saved(tmp_path, model)), "--out", str(tmp_path / "run")]
    assert invoke(run) == 2
    told = "(phi3, longrope) rotates texts of more than 20 tokens otherwise than shorter ones; set it to at most 20"
    assert told in capsys.readouterr().err
    assert invoke([*run, "--set", "experiments.heads.max_length=20"]) == 0


def test_a_mask_that_shows_itself_in_long_texts_alone_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check against eager takes 24 tokens; these layers attend within chunks of 30."""
    config = transformers.Llama4TextConfig(
        **families.GROUPED, head_dim=8, num_local_experts=2, intermediate_size_mlp=64, attention_chunk_size=30
    )
    run = ["run", str(saved(tmp_path, families.build(lambda: config))), "--out", str(tmp_path / "run")]
    assert invoke([*run, "--set", "experiments.heads.max_length=40"]) == 2
    told = "the attention of llama4_text is not supported over 40 tokens: layer 0, position 30 sees other positions"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert invoke(run) == 0  # 24 tokens lie in one chunk


@pytest.mark.parametrize("name", families.FAMILIES)
def test_masks_of_the_families_are_windows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.build(families.FAMILIES[name])
    check_masks(model, name, 60)
    if name in {"mistral", "gemma2", "gemma3", "cohere2"}:  # a window that is read one too long is seen
        original = capture.listen_masks

        def longer(model: Any, ids: Any, look: Any) -> None:
            original(model, ids, lambda layer, mask, window: look(layer, mask, window and window + 1))

        monkeypatch.setattr(capture, "listen_masks", longer)
        with pytest.raises(UsageError, match="layer 0, position 16 sees other positions than those before it, the"):
            check_masks(model, name, 60)


def test_a_token_that_breaks_the_model_is_named_by_its_position(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = small_models.llama(2)
    model.model.embed_tokens.weight[:, 0] = 0.0
    model.model.embed_tokens.weight[2] = torch.eye(48)[0]  # w0, the most frequent word
    model.model.layers[0].self_attn.q_proj.weight[:, 0] = 3e38  # finite, and too large once it is multiplied
    config = saved(tmp_path, model)
    code = invoke(["run", str(config), "--out", str(tmp_path / "run")])
    errors = capsys.readouterr().err
    assert code in {2, 3}
    assert "layer 0, head 0, position" in errors
    assert "not finite" in errors


def documents(words: str) -> str:
    """Eight documents, no two of them equal."""
    return "".join(json.dumps({"text": words * (6 + number)}) + "\n" for number in range(8))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = saved(tmp_path, small_models.llama(2))
    tokenizer = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["more"] = 40
    shutil.copytree(tmp_path / "model", tmp_path / "larger")
    (tmp_path / "larger" / "tokenizer.json").write_text(json.dumps(tokenizer))
    run = ["run", str(config), "--out", str(tmp_path / "run")]
    (tmp_path / "d.jsonl").write_text(documents("w1 more w2 "))
    assert invoke([*run, "--set", f"models=[{tmp_path / 'larger'}]"]) == 2
    assert "position 1 has token 40, 'more', the model" in capsys.readouterr().err
    (tmp_path / "d.jsonl").write_text(documents("words of no model "))
    assert invoke(run) == 2
    assert "knows none of it, every token is '[UNK]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
