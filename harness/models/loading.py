"""Models from files, checked before they are used. Never remote code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.models.config_file import called, read_config
from harness.models.first_pass import check_output
from harness.models.placement import pick_device
from harness.models.weights import read_model

__all__ = [
    "called",
    "check_output",
    "context_window",
    "load_config",
    "load_model",
    "model_of",
    "notes_on",
    "pick_device",
]


def load_config(path: Path) -> Any:
    """The (text) config of a model folder.

    Raises:
        UsageError: an architecture that transformers does not have, a config that it refuses, an encoder-decoder, or no
            language model at all.
    """
    return read_config(path).text


def load_model(path: Path, device: str, allow_mismatch: bool = False, dtype: str = "float32") -> Any:
    """The causal language model of a folder, in evaluation mode.

    Args:
        path: folder with config.json and safetensors.
        device: of `pick_device`.
        allow_mismatch: go on where files and config do not agree; see `weights.read_model`.
        dtype: of its weights: float32, bfloat16 or float16.

    Raises:
        UsageError: files that cannot be read, or that do not agree with the config; weights that are NaN or infinite.
    """
    return read_model(path, device, allow_mismatch, dtype).model


def model_of(local: Mapping[str, Any]) -> Any:
    """The model of a unit, by what the plan gave it to find it on this machine: path, device, allow_mismatch, dtype."""
    more = {name: local[name] for name in ("allow_mismatch", "dtype") if name in local}
    return load_model(Path(local["path"]), local["device"], **more)


def notes_on(path: Path, device: str, allow_mismatch: bool = False, dtype: str = "float32") -> tuple[str, ...]:
    """What was set aside or does not fit in a model that has been loaded, one line each."""
    return (*read_config(path).notes, *read_model(path, device, allow_mismatch, dtype).notes)


def context_window(config: Any) -> int | None:
    """How many tokens a model takes at most, or None where its config does not say."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
