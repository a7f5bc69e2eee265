"""Folders of models: what is refused, and which tokenizer reads the texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import small_models
import transformers

import harness
from harness.cli.app import invoke
from harness.config.decoding import Generation
from harness.core.errors import UsageError
from harness.models import loading, tokenizers
from harness.models.language_model import generate


def change(file: Path, by: Callable[[Any], Any]) -> None:
    data = json.loads(file.read_text())
    file.write_text(json.dumps(by(data)))


def saved(tmp_path: Path) -> Path:
    return small_models.save(small_models.llama(2), tmp_path / "model")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_attention_heads": "six"}, "expected int, got str (value: 'six')"),
        ({"num_attention_heads": 5}, "is not a multiple of the number of attention heads (5)"),
        ({"model_type": "my-own"}, "has model type `my-own` but Transformers does not recognize"),
    ],
)
def test_a_config_that_transformers_refuses_is_one_line(
    values: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path)
    change(folder / "config.json", lambda config: {**config, **values})
    capsys.readouterr()
    assert invoke(["run", "quickstart", "--out", str(tmp_path / "run"), "--set", f"models=[{folder}]"]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert str(folder) in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            "config.json: quantization_config (gptq): quant",
        ),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "(bitsandbytes): quantised weights are not read"),
        (
            {"vocab_size": 50},
            "2 weights are of another shape in the files: lm_head.weight [40, 48] for [50, 48], model.",
        ),
        ({"num_key_value_heads": 3}, "4 weights are of another shape in the files: model.layers.0.self_attn.k_proj.we"),
    ],
)
def test_weights_that_cannot_be_loaded_are_one_line(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change(folder / "config.json", lambda config: {**config, **values})
    with pytest.raises(UsageError) as caught:
        loading.load_model(folder, "cpu")
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_config_that_is_none_is_one_line(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UsageError, match="no usable tokenizer: 'list' object has no attribute 'get'"):
        tokenizers.load_tokenizer(folder)


def test_an_unknown_token_that_is_no_token_is_one_line(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    change(folder / "tokenizer_config.json", lambda record: {**record, "unk_token": ""})
    with pytest.raises(UsageError, match="no usable tokenizer: its unknown token '' is not in its vocabulary"):
        tokenizers.load_tokenizer(folder)


def test_a_model_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="vit has no vocab_size; a causal language model is needed"):
        loading.load_config(tmp_path)


def test_a_snapshot_of_the_hub_is_called_by_its_name() -> None:
    commit = "0123456789" * 4
    assert loading.called(Path("/c/hub/models--me--tiny/snapshots") / commit) == "me/tiny@01234567"
    assert loading.called(Path("/c/models/mine")) == "/c/models/mine"


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "gemma2"])
def test_the_tokenizer_is_the_one_that_was_saved(name: str, tmp_path: Path) -> None:
    """transformers takes the class of Qwen2 for every Qwen2 model, which reads none of these words."""
    families.FAMILIES[name]().save_pretrained(tmp_path)
    small_models.tokenizer().save_pretrained(tmp_path)
    tokenizer = tokenizers.load_tokenizer(tmp_path)
    assert small_models.read(tokenizer, "w0 w7 w37 else") == [2, 9, 39, 0]
    assert tokenizer.padding_side == "left"


def with_image_token(folder: Path) -> Any:
    """A tokenizer with a special token beyond the embeddings, as Gemma 3 has one for images; it pads, too."""
    tokenizer = small_models.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.pad_token = "<image>"
    tokenizer.save_pretrained(folder)
    return tokenizers.load_tokenizer(folder)


def test_a_special_token_beyond_the_model_is_refused_only_in_a_text(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    tokenizer = with_image_token(folder)
    assert tokenizer.pad_token_id == small_models.VOCAB_SIZE
    prompts = [("plain", "w1 w2 w3", False), ("short", "w1", False)]
    reader = tokenizers.make_reader(folder, "mine")
    tokenizers.read_prompts(reader, folder, prompts, 4)
    found = generate(
        loading.load_model(folder, "cpu"), tokenizer, [[3, 4, 5], [3]], temperature=None, max_new_tokens=4, seed=0
    )
    assert len(found) == 2
    reader = tokenizers.make_reader(folder, "mine", Generation(special_strings="parse"))
    with pytest.raises(
        UsageError, match="prompt 'odd': position 1 has token 40, '<image>', the model 'mine' has only 40"
    ):
        tokenizers.read_prompts(reader, folder, [("odd", "w1 <image> w2", False)], 4)


def test_a_process_loads_the_weights_of_a_model_once(
    tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan checks the model, and every unit of a worker asks for it again: its files are read by the first only."""
    loads: list[Path] = []
    read = transformers.AutoModelForCausalLM.from_pretrained

    def counting(path: Any, *arguments: Any, **settings: Any) -> Any:
        loads.append(Path(path))
        return read(path, *arguments, **settings)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", counting)
    own = tmp_path / "own"  # a folder that no test before has loaded
    shutil.copytree(small_model, own)
    texts = small_models.random_texts(4, 12)
    (tmp_path / "prompts.yaml").write_text(
        json.dumps([{"id": f"p{i}", "kind": "a", "text": text} for i, text in enumerate(texts)]), encoding="utf-8"
    )
    config = {
        "name": "loads", "models": [str(own)], "prompts": str(tmp_path / "prompts.yaml"), "held_out": 0.5,
        "generation": {"max_new_tokens": 8, "strategies": ["greedy", {"temperature": 1.0}]},
        "experiments": [{"kind": "generation", "rollout_seeds": 1, "surrogates": ["counts"]}],
    }  # fmt: skip
    done = harness.run(config, out=tmp_path / "run", executor="serial")
    assert len(done.manifest["units"]) > 3
    assert [path.resolve() for path in loads] == [own.resolve()]
    first = loading.model_of({"path": str(own), "device": "cpu"})
    assert loading.model_of({"path": str(own), "device": "cpu"}) is first
