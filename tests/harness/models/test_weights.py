"""Weights: files and config that do not agree, weights that are no numbers, tensors that old files hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import small_models
import torch
from safetensors.torch import load_file, save_file

from harness.cli.app import invoke
from harness.core.errors import UsageError
from harness.models import loading
from harness.models.weights import read_model

Tensors = dict[str, torch.Tensor]


def saved(folder: Path, family: str | None = None, **changes: Any) -> Path:
    """A small model on disk: rotary with its own output layer, or one of `families`."""
    model = small_models.llama(2, **changes) if family is None else families.build(families.FAMILIES[family])
    return small_models.save(model, folder / "model")


def change_weights(folder: Path, by: Callable[[Tensors], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    by(tensors)
    save_file({key: one.contiguous() for key, one in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        loading.load_model(folder, "cpu")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def allowed(folder: Path) -> tuple[Any, str]:
    """The model that is loaded in spite of a mismatch, and its only note."""
    model = loading.load_model(folder, "cpu", True)
    (note,) = loading.notes_on(folder, "cpu", True)
    assert note.endswith("allowed by models.allow_mismatch")
    return model, note


HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def test_a_model_as_it_was_saved_has_no_notes(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    loading.load_model(folder, "cpu")
    assert loading.notes_on(folder, "cpu") == ()


def test_tied_by_the_config_and_different_in_the_file(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_config(folder, tie_word_embeddings=True)
    said = f"1 weight is tied by the config and different in the files: {HEAD} and {EMBEDDING}"
    assert said in refusal(folder)
    assert "go on with --set models.allow_mismatch=true" in refusal(folder)
    model, note = allowed(folder)
    assert f"{said} (both are used as they are)" in note
    stored = load_file(folder / "model.safetensors")
    assert torch.equal(model.lm_head.weight, stored[HEAD])
    assert torch.equal(model.model.embed_tokens.weight, stored[EMBEDDING])


def test_tied_weights_that_are_stored_twice_and_equal_are_fine(tmp_path: Path) -> None:
    folder = saved(tmp_path, tie_word_embeddings=True)
    change_weights(folder, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].clone()}))
    model = loading.load_model(folder, "cpu")
    assert loading.notes_on(folder, "cpu") == ()
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_an_output_layer_that_is_not_there_is_not_made_up(tmp_path: Path) -> None:
    folder = saved(tmp_path, tie_word_embeddings=True)
    change_config(folder, tie_word_embeddings=False)
    said = f"1 weight is missing from the files: {HEAD}; a tied output layer needs tie_word_embeddings true"
    assert said in refusal(folder)
    first, note = allowed(folder)
    assert f"{HEAD} (random start values of seed 0, NOT trained, stand in)" in note
    read_model.cache_clear()
    torch.manual_seed(7)
    torch.rand(5)
    again, _ = allowed(folder)
    assert again is not first
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)


def test_made_up_weights_leave_the_global_generator_alone(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda tensors: tensors.pop("model.norm.weight"))
    torch.manual_seed(7)
    wanted = torch.rand(1)
    torch.manual_seed(7)
    loading.load_model(folder, "cpu", True)
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.parametrize(
    "key", ["lm_head.bias", "model.layers.0.self_attn.q_proj.bias", "adapter.weight", "model.layers.1.self_attn.rope.x"]
)
def test_tensors_without_a_place_are_refused_by_name(key: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda tensors: tensors.update({key: torch.ones(48)}))
    said = f"1 weight is in the files without a place in the model of config.json: {key}"
    assert said in refusal(folder)
    assert f"{said} (not used)" in allowed(folder)[1]


def test_a_layer_beyond_the_config_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_config(folder, num_hidden_layers=1)
    message = refusal(folder)
    assert "9 weights are in the files without a place in the model of config.json: model.layers.1." in message
    assert "and 6 more" in message
    assert len(allowed(folder)[0].model.layers) == 1


def test_weights_that_are_missing_are_refused_by_name(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_config(folder, num_hidden_layers=3)
    assert "9 weights are missing from the files: model.layers.2." in refusal(folder)


def test_everything_that_differs_is_named_at_once(tmp_path: Path) -> None:
    folder = saved(tmp_path)

    def change(tensors: Tensors) -> None:
        tensors["odd"] = torch.ones(1)
        del tensors["model.norm.weight"]
        tensors[HEAD] = tensors[HEAD][:30]

    change_weights(folder, change)
    message = refusal(folder)
    assert "1 weight is missing from the files: model.norm.weight" in message
    assert f"1 weight is of another shape in the files: {HEAD} [30, 48] for [40, 48]" in message
    assert "without a place in the model of config.json: odd" in message
    loading.load_model(folder, "cpu", True)
    assert len(loading.notes_on(folder, "cpu", True)) == 3


@pytest.mark.parametrize(
    ("family", "prefix"), [("gpt2", "transformer."), ("llama", "model."), ("gpt2", ""), ("llama", "")]
)
def test_files_of_the_bare_model_are_read_and_doubles_refused(family: str, prefix: str, tmp_path: Path) -> None:
    """Old files leave the prefix of the base model out."""
    folder = saved(tmp_path, family)
    full = "transformer." if family == "gpt2" else "model."
    stored = load_file(folder / "model.safetensors")
    short = {key.removeprefix(full): one for key, one in stored.items()}
    if prefix:
        save_file({**stored, **{k: v + 1 for k, v in short.items() if k not in stored}}, folder / "model.safetensors")
        assert "its files hold both" in refusal(folder)
    else:
        save_file(short, folder / "model.safetensors")
        state = loading.load_model(folder, "cpu").state_dict()
        assert all(torch.equal(state[key], one) for key, one in stored.items())


def mask(size: int) -> torch.Tensor:
    return torch.ones(size, size).tril()[None, None]


ROTATION = 1.0 / 10000.0 ** (torch.arange(0, 8, 2) / 8)


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("gpt2", {"h.0.attn.bias": mask(128), "h.0.attn.masked_bias": torch.tensor(-1e4)}),
        ("gpt2", {"transformer.h.1.attn.bias": mask(128).bool()}),
        ("gpt2", {"transformer.h.1.attn.bias": mask(64).to(torch.uint8)}),
        ("gpt_neox", {"gpt_neox.layers.0.attention.bias": mask(128).bool()}),
        ("gpt_neox", {"gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9)}),
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": ROTATION}),
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": ROTATION.to(torch.bfloat16)}),
        ("llama", {"model.position_ids": torch.arange(128)[None]}),
    ],
)
def test_masks_angles_and_positions_of_old_files_are_harmless(family: str, extra: Tensors, tmp_path: Path) -> None:
    folder = saved(tmp_path, family)
    change_weights(folder, lambda tensors: tensors.update(extra))
    loading.load_model(folder, "cpu")
    (note,) = loading.notes_on(folder, "cpu")
    count = "1 tensor of its files is" if len(extra) == 1 else f"{len(extra)} tensors of its files are"
    assert f"{count} not needed: {next(iter(extra))}" in note


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("gpt2", {"transformer.h.0.attn.bias": mask(128).flip(-1)}),
        ("gpt2", {"transformer.h.7.attn.c_attn.bias": torch.ones(144)}),
        ("gpt2", {"transformer.h.0.attn.masked_bias": torch.tensor(0.5)}),
        ("llama", {"model.layers.0.self_attn.rotary_emb.inv_freq": ROTATION / 4}),
        ("llama", {"model.position_ids": torch.arange(128)[None] + 2}),
    ],
)
def test_masks_angles_and_positions_that_differ_are_refused(family: str, extra: Tensors, tmp_path: Path) -> None:
    """Also where the library would leave them out by a pattern such as `attn.bias`."""
    folder = saved(tmp_path, family)
    change_weights(folder, lambda tensors: tensors.update(extra))
    assert f"without a place in the model of config.json: {next(iter(extra))}" in refusal(folder)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers_are_named_and_counted(bad: float, tmp_path: Path) -> None:
    folder = saved(tmp_path)

    def change(tensors: Tensors) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5:8] = bad
        tensors["model.norm.weight"][0] = bad

    change_weights(folder, change)
    message = refusal(folder)
    assert "model.layers.1.mlp.up_proj.weight has 3 of 3,072 numbers that are NaN or infinite" in message
    assert "and 1 more weight has such" in message
    with pytest.raises(UsageError, match="NaN or infinite"):
        loading.load_model(folder, "cpu", True)


def test_numbers_too_large_for_float32_are_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda tensors: tensors.update({HEAD: tensors[HEAD].double() * 1e60}))
    assert "lm_head.weight has 1,920 of 1,920 numbers that are NaN or infinite as float32" in refusal(folder)


def test_large_small_and_zero_weights_are_fine(tmp_path: Path) -> None:
    """The sum over the first overflows, none of its numbers does."""
    folder = saved(tmp_path)

    def change(tensors: Tensors) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][:] = 3e38
        tensors["model.layers.0.mlp.up_proj.weight"][:] = 1e-42
        tensors[HEAD][:] = 0

    change_weights(folder, change)
    loaded = loading.load_model(folder, "cpu").state_dict()
    assert float(loaded["model.layers.1.mlp.up_proj.weight"].min()) == pytest.approx(3e38)
    assert not loaded[HEAD].any()


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.int32, torch.bool])
def test_quantised_weights_without_a_word_in_the_config_are_refused(kind: torch.dtype, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda tensors: tensors.update({HEAD: tensors[HEAD].to(kind)}))
    message = refusal(folder)
    assert "lm_head.weight is stored as " in message
    assert "quantised weights are not read" in message


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(kind: torch.dtype, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda tensors: tensors.update({key: one.to(kind) for key, one in tensors.items()}))
    change_config(folder, dtype=str(kind).removeprefix("torch."))
    model = loading.load_model(folder, "cpu")
    assert loading.notes_on(folder, "cpu") == ()
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    assert torch.equal(model.lm_head.weight, load_file(folder / "model.safetensors")[HEAD].float())


def test_adapters_and_distributed_checkpoints_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter_config.json" in refusal(folder)
    (folder / "adapter_config.json").unlink()
    (folder / "shard-00001-model-00001-of-00002.safetensors").write_bytes(b"")
    assert "distributed checkpoint" in refusal(folder)


def run(folder: Path, model: Path, *more: str) -> int:
    config = {
        "name": "x",
        "models": [str(model)],
        "prompts": "prompts.yaml",
        "generation": {"max_new_tokens": 4, "strategies": ["greedy"]},
        "experiments": [{"kind": "generation", "rollout_seeds": 1}],
    }
    texts = small_models.random_texts(4, 12)
    (folder / "prompts.yaml").write_text(
        json.dumps([{"id": f"p{i}", "kind": "a", "text": t} for i, t in enumerate(texts)])
    )
    (folder / "x.yaml").write_text(json.dumps(config))
    return invoke(["run", str(folder / "x.yaml"), "--out", str(folder / "run"), *more])


def test_a_run_refuses_a_mismatch_and_goes_on_where_it_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path)
    change_weights(folder, lambda tensors: tensors.update({"lm_head.bias": torch.ones(40)}))
    assert run(tmp_path, folder) == 2
    errors = capsys.readouterr().err
    assert "lm_head.bias" in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert run(tmp_path, folder, "--set", "models.allow_mismatch=true") == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["config"]["models"] == {"names": [str(folder)], "allow_mismatch": True}
    assert any("lm_head.bias (not used)" in note for note in manifest["notes"])
