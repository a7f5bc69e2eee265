"""The config.json of a model folder: checked, and freed of what would act silently on decoding or on attention."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from harness.core.errors import UsageError, one_line
from harness.models import one_layer_hf  # noqa: F401 - registers the one-layer model with transformers
from harness.models.library import heard_warnings
from harness.models.one_layer_config import OneLayerConfig
from harness.models.tensor_files import read_json, shown

assert OneLayerConfig.model_type in CONFIG_MAPPING

CHOSEN: dict[str, tuple[Any, ...]] = {
    "attn_implementation": (None, "sdpa"),
    "_attn_implementation": (None, "sdpa"),
    "_attn_implementation_internal": (None, "sdpa"),
    "experts_implementation": (None,),
    "_experts_implementation": (None,),
    "_experts_implementation_internal": (None,),
    "output_attentions": (None, False),
    "output_hidden_states": (None, False),
    "return_dict": (None, True),
    "use_return_dict": (None, True),
    "return_dict_in_generate": (None, False),
    "use_cache": (None, True),
    "chunk_size_feed_forward": (None, 0),
    "torchscript": (None, False),
    "gradient_checkpointing": (None, False),
    "fusion_config": (None,),
    "distributed_config": (None,),
    "device_map": (None,),
    "tp_plan": (None,),
}
"""Settings of how a model is run, not of what it is, with the values that need no note. The harness chooses them."""

UNREAD = ("dtype", "torch_dtype", "_commit_hash", "_name_or_path", "name_or_path", "_attn_implementation_autoset")
"""Records of how weights were stored and where they came from: they are always read as float32, from this folder."""

LARGEST_VOCABULARY = 2**22
MOST_PARTS = 4096
"""Layers and experts are made one by one; the deepest published models have a few hundred of each."""


@dataclass(frozen=True)
class ModelConfig:
    """A config as transformers reads it.

    Attributes:
        whole: of the folder; of a model that reads images too it holds several.
        text: of the language model in it.
        notes: what was set aside, one line each.
    """

    whole: Any
    text: Any
    notes: tuple[str, ...]


def called(path: Path) -> str:
    """A model folder as messages name it: a snapshot in the hub's cache by owner, name and commit."""
    repository = path.parent.parent.name
    if path.parent.name == "snapshots" and repository.startswith("models--"):
        return f"{repository.removeprefix('models--').replace('--', '/')}@{path.name[:8]}"
    return str(path)


def _refusal(data: dict[str, Any], kind: str) -> str | None:
    """Why a config, or a part of it, cannot be used; None where nothing speaks against it."""
    for key in ("quantization_config", "compression_config"):
        if data.get(key):
            method = data[key].get("quant_method") if isinstance(data[key], dict) else None
            return (
                f"{key}{f' ({shown(str(method))})' if method else ''}: quantised weights are not read; give them as "
                "float32, float16 or bfloat16, such as model.dequantize() saves"
            )
    if data.get("pruned_heads"):
        return "pruned_heads: models without some of their heads are not read; give the whole model"
    if data.get("transformers_weights"):
        return "transformers_weights names another file of weights; rename that to model.safetensors and remove the key"
    if not isinstance(data.get("tie_word_embeddings", False), bool | None):
        return f"tie_word_embeddings is true or false, got {data['tie_word_embeddings']!r:.40}"
    own = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else PreTrainedConfig  # noqa: SIM401 - `get` loads no class
    for key, value in data.items():
        parts = any(part in key for part in ("layer", "expert", "block")) and not key.endswith(("size", "dim", "id"))
        if type(value) is int and parts and not -1 <= value <= MOST_PARTS:
            return f"{shown(key)} is {value:.6g}; up to {MOST_PARTS} are read"
        if key == "vocab_size" and type(value) is int and not 0 < value <= LARGEST_VOCABULARY:
            return f"vocab_size is {value:.6g}; between 1 and {LARGEST_VOCABULARY} are read"
        if key == "attribute_map" or callable(getattr(own, key, None)):
            return f"{shown(key)} is a part of transformers' own code and cannot be set"
    return None


def _without_choices(data: dict[str, Any], aside: dict[str, Any]) -> dict[str, Any]:
    """A config, and each config inside it, without the settings that the harness chooses; these go to `aside`."""
    kept = {}
    for key, value in data.items():
        if key in CHOSEN:
            if not any(type(value) is type(plain) and value == plain for plain in CHOSEN[key]):
                aside.setdefault(key, value)
        elif key not in UNREAD and key != "auto_map":
            inner = isinstance(value, dict) and (key.endswith("_config") or key == "per_layer_config")
            kept[key] = _without_choices(value, aside) if inner else value
    return kept


def _cleaned(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The config of a folder without what is set aside, and the notes about it."""
    name, file = f"model {called(path)!r}", path / "config.json"
    data = read_json(file)
    kind = data.get("model_type")
    if "auto_map" in data and (not isinstance(kind, str) or kind not in CONFIG_MAPPING):
        raise UsageError(
            f"{name}: {shown(str(kind))} is defined by code of its own (auto_map in config.json), and code of a model "
            "is never run here; give a model of an architecture that transformers has"
        )
    if not isinstance(kind, str):
        raise UsageError(f"{name}: config.json has no model_type, the name of an architecture of transformers")
    parts = [data, *(value for key, value in data.items() if key.endswith("_config") and isinstance(value, dict))]
    for part in parts:
        if (refusal := _refusal(part, str(part.get("model_type", kind)))) is not None:
            raise UsageError(f"{name}: config.json: {refusal}")
    aside: dict[str, Any] = {}
    kept = _without_choices(data, aside)
    notes = []
    if aside:
        said = ", ".join(f"{key} {json.dumps(value)[:40]}" for key, value in aside.items())
        notes.append(f"{name}: config.json has settings that the harness chooses itself; set aside: {said}")
    if data.get("auto_map"):
        notes.append(f"{name}: its own code (auto_map in config.json) is not run; transformers' {kind} is used")
    return kept, notes


@lru_cache(maxsize=4)
def read_config(path: Path) -> ModelConfig:
    """The config of a model folder, checked.

    Raises:
        UsageError: no JSON, an architecture that transformers does not have, a config that it refuses or that needs
            what the harness does not have, an encoder-decoder, or no language model at all.
    """
    name = f"model {called(path)!r}"
    kept, notes = _cleaned(path)
    with tempfile.TemporaryDirectory() as clean:
        (Path(clean) / "config.json").write_text(json.dumps(kept), encoding="utf-8")
        try:
            with heard_warnings(name) as heard:
                config = AutoConfig.from_pretrained(clean, trust_remote_code=False)
        except Exception as error:  # each check of a config raises its own kind
            raise UsageError(f"{name}: {one_line(error).replace(clean, str(path))[:200]}") from None
    config.name_or_path = str(path)
    if getattr(config, "is_encoder_decoder", False):
        raise UsageError(f"{name}: {config.model_type} is an encoder-decoder; a causal language model is needed")
    try:
        text = config.get_text_config()
    except Exception as error:  # several configs of texts, or none where one is promised
        raise UsageError(f"{name}: {one_line(error)[:200]}") from None
    for key in ("vocab_size", "num_hidden_layers"):
        value = getattr(text, key, None)
        if type(value) is not int or value < 1:
            has = "has no" if value is None else f"has {value!r:.40} as"
            raise UsageError(f"{name}: {config.model_type} {has} {key}; a causal language model is needed")
    return ModelConfig(config, text, (*notes, *heard))
