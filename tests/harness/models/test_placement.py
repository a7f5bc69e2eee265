"""Models in several files, and models whose layers accelerate spreads: rows do not depend on either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import families
import numpy as np
import pandas as pd
import pytest
import small_models
import torch
import yaml
from transformers import AutoModelForCausalLM

import harness
from harness.cli.app import invoke
from harness.config.load import load_config
from harness.core.errors import UsageError
from harness.models import loading, placement
from harness.runs import provenance
from harness.runs.executors.room import room_of
from harness.runs.units import Unit

needs_accelerate = pytest.mark.skipif(
    placement.find_spec("accelerate") is None, reason="accelerate is not installed: pip install accelerate"
)
EXPERIMENTS: list[dict[str, Any]] = [
    {"kind": "heads", "surrogates": ["counts", "pccmc-weights", "ccmc-fit", "exact-keys"], "layers_per_unit": 3},
    {"kind": "generation", "rollout_seeds": 1, "surrogates": ["counts", "bigram", "ccmc-fit"], "escape": True},
    {
        "kind": "in-the-loop", "surrogates": ["pccmc-weights"], "leaders": ["pccmc-weights"], "nulls": ["counts"],
        "controls": ["mean-output"], "sets": ["share"], "shares": [0.5], "generate": [0.5], "alone_map": False,
        "training_texts": 2, "max_length": 24, "layers_per_unit": 3,
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as one file, and the same in shards."""
    made: Path = tmp_path_factory.mktemp("placed")
    model = small_models.llama(3)
    small_models.save(model, made / "whole")
    model.save_pretrained(made / "sharded", max_shard_size="50KB")
    small_models.tokenizer().save_pretrained(made / "sharded")
    return made


def run(folder: Path, name: str, model: str, **changes: Any) -> Any:
    texts = small_models.random_texts(10, 12)
    prompts = [{"id": f"p{i:02}", "kind": "ab"[i % 2], "text": text} for i, text in enumerate(texts)]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts), encoding="utf-8")
    config = {
        "name": "placed", "models": [str(folder / model)], "prompts": str(folder / "prompts.yaml"), "held_out": 0.3,
        "generation": {"max_new_tokens": 12, "ignore_eos": True, "strategies": ["greedy", {"temperature": 1.0}]},
        "experiments": EXPERIMENTS, **changes,
    }  # fmt: skip
    return harness.run(config, out=folder / name, executor="serial")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    return run(folder, "plain", "whole", device="cpu")


def figures(one: Any) -> pd.DataFrame:
    """Rows without the model's name and folder-dependent revision, in a fixed order."""
    return one.rows.drop(columns=["model", "revision"]).reset_index(drop=True)


def test_rows_of_a_model_in_shards_are_those_of_the_same_in_one_file(folder: Path, plain: Any) -> None:
    shards = sorted(file.name for file in (folder / "sharded").glob("*.safetensors"))
    assert len(shards) > 1 and "model.safetensors" not in shards
    sharded = run(folder, "of-shards", "sharded", device="cpu")
    pd.testing.assert_frame_equal(figures(sharded), figures(plain), check_exact=True)


@needs_accelerate
def test_rows_with_a_device_map_are_those_of_one_device(folder: Path, plain: Any) -> None:
    mapped = run(folder, "mapped", "whole", device_map="auto")
    if not torch.cuda.is_available():
        pd.testing.assert_frame_equal(figures(mapped), figures(plain), check_exact=True)
        assert mapped.manifest["machine"]["device"] == "device_map=auto"
    assert [u["key"] for u in mapped.manifest["units"]] == [u["key"] for u in plain.manifest["units"]]


@needs_accelerate
@pytest.mark.skipif(torch.cuda.is_available(), reason="compares what is loaded on the CPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_a_mapped_model_is_the_same_tensor_by_tensor(family: str, dtype: str, tmp_path: Path) -> None:
    folder = small_models.save(families.build(families.FAMILIES[family]), tmp_path / "model")
    one = loading.load_model(folder, "cpu", dtype=dtype)
    own = {**dict(one.named_parameters()), **dict(one.named_buffers())}
    try:
        mapped = loading.load_model(folder, "device_map=auto", dtype=dtype)
    except UsageError as error:  # a family that transformers does not spread
        assert "cannot be loaded" in str(error) and "_no_split_modules" in str(error)
        pytest.skip(str(error))
    found = {**dict(mapped.named_parameters()), **dict(mapped.named_buffers())}
    assert found.keys() == own.keys()
    for name, tensor in own.items():
        assert (found[name].dtype, str(found[name].device)) == (tensor.dtype, "cpu"), name
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)
    assert mapped.config.dtype == one.config.dtype
    assert not any(weight.requires_grad for weight in mapped.parameters()) and not mapped.training


def test_without_accelerate_one_line_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(placement, "find_spec", lambda name: None)
    (tmp_path / "c.yaml").write_text(json.dumps({
        "name": "x", "models": [str(folder / "whole")], "prompts": [{"id": "a", "kind": "a", "text": "w1 w2 w3"},
                                                                   {"id": "b", "kind": "a", "text": "w3 w2 w3"}],
        "device_map": "auto", "experiments": [EXPERIMENTS[1]],
    }))  # fmt: skip
    assert invoke(["run", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "device_map: auto needs accelerate: pip install accelerate" in error
    assert len(error.strip().splitlines()) == 1


def test_a_device_and_a_map_contradict_each_other(plain: Any) -> None:
    config = plain.manifest["config"]
    assert "device_map" not in config  # as configs of earlier versions are recorded
    with pytest.raises(UsageError, match="both device: cpu and device_map: auto are given"):
        load_config({**config, "device_map": "auto"})
    with pytest.raises(UsageError, match="device_map"):
        load_config({**config, "device": "auto", "device_map": "automatic"})
    assert load_config({**config, "device": "auto", "device_map": "balanced"}).config.device_map == "balanced"


class Spread:
    """Stands in for a model that transformers has put somewhere."""

    def __init__(self, **where: Any) -> None:
        self.hf_device_map = where


def test_what_does_not_fit_is_refused() -> None:
    for fine in (Spread(), Spread(all="cpu"), Spread(a=0, b=1), Spread(a="cuda:0", b="cuda:1")):
        placement.check_spread(fine, "model 'm'")
    for away in (Spread(a=0, b="cpu"), Spread(a=0, b="disk"), Spread(c="cpu", b="disk")):
        with pytest.raises(UsageError, match=r"model 'm': 1 of its 2 parts .* \(the first: b\); set dtype"):
            placement.check_spread(away, "model 'm'")


def test_a_unit_of_a_mapped_model_wants_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    assert room_of(Unit("m:f", "x", {}, local={"device": "device_map=auto"})).gpus == 3
    assert room_of(Unit("m:f", "x", {}, local={"device": "cuda"})).gpus == 1
    assert provenance.machine("device_map=auto")["gpu"] == "GPU 0, GPU 1, GPU 2"
    assert "gpu" not in provenance.machine("cpu")


def test_a_sharded_model_has_the_logits_of_transformers(folder: Path) -> None:
    ids = torch.from_numpy(small_models.random_ids(12))[None]
    own = loading.load_model(folder / "sharded", "cpu")(ids).logits
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder / "whole", dtype=torch.float32)
    np.testing.assert_array_equal(own.numpy(), theirs(ids).logits.detach().numpy())
