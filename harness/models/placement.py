"""Where a model computes: on one device, or its layers on several, as `device_map` of transformers spreads them.

A place is written as one word: `cpu`, `cuda` or `mps`, or `device_map=auto` and the like. No row depends on it but by
rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from harness.core.errors import UsageError

MAPPED = "device_map="


def pick_device(device: str, device_map: str | None = None) -> str:
    """The place to compute on: `auto` takes CUDA, then MPS, then the CPU.

    Args:
        device: auto, cpu, cuda or mps.
        device_map: auto, balanced, balanced_low_0 or sequential; None: the whole model on one device.

    Raises:
        UsageError: where the named device is not there, or accelerate, which spreads models, is not installed.
    """
    if device_map is not None:
        if find_spec("accelerate") is None:
            raise UsageError(f"device_map: {device_map} needs accelerate: pip install accelerate")
        return MAPPED + device_map
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    if (device == "cuda" and not cuda) or (device == "mps" and not mps):
        raise UsageError(f"device: {device} is not available here; use auto or cpu")
    return device


def map_of(place: str) -> str | None:
    """The device map of a place; None for a single device."""
    return place.removeprefix(MAPPED) if place.startswith(MAPPED) else None


def check_spread(model: Any, name: str) -> None:
    """Refuse a model of which a part would be fetched from the CPU or the disk whenever it computes.

    Attention is read from the layers themselves, so that their weights must stay where they compute.

    Raises:
        UsageError: names the model, and how much of it does not fit.
    """
    where = {part: str(device) for part, device in (getattr(model, "hf_device_map", None) or {}).items()}
    kept_away = {"disk"} if set(where.values()) <= {"cpu", "disk"} else {"cpu", "disk"}
    away = [part for part, device in where.items() if device in kept_away]
    if away:
        raise UsageError(
            f"{name}: {len(away)} of its {len(where)} parts do not fit on the devices of this machine (the first: "
            f"{away[0]}); set dtype: bfloat16, take a machine with more memory, or device: cpu"
        )


def spread(model: Any) -> bool:
    """Are its weights on several devices, or on another one than the CPU?"""
    return {weight.device.type for weight in model.parameters()} != {"cpu"}


def restore_buffers(model: Any, config: Any, stored: Mapping[str, Path]) -> None:
    """Give a model that was read in 16 bits its buffers in the bits that it computes them in.

    Rotations by long distances need their 32 bits; a model that is on one device is read in 32 bits first.

    Args:
        model: as it was loaded, on any devices.
        config: of which it was made.
        stored: file of each tensor that the folder holds.
    """
    from accelerate import init_empty_weights
    from safetensors import safe_open

    with init_empty_weights(include_buffers=False):
        plain = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32, trust_remote_code=False)
    for name, wanted in plain.named_buffers():
        owner, _, short = name.rpartition(".")
        module = model.get_submodule(owner)
        mine = module._buffers[short]
        if mine.dtype == wanted.dtype:
            continue
        value = wanted
        if name in stored:
            with safe_open(stored[name], framework="pt") as file:
                value = file.get_tensor(name).to(wanted.dtype)
        module._buffers[short] = value.to(mine.device)
