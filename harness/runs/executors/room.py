"""What a unit needs of the machine that does it: cores, GPUs and memory. No row depends on it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from harness.runs.units import Room, Unit

PROCESS = 2**30
"""Bytes of a worker with its libraries, before it has loaded a model."""
PER_WEIGHT_BYTE = 3
"""Bytes of memory per byte of the weights' files, which may hold 16 bits of what is computed in 32."""
PER_TOKEN_TYPE = 10 * 2**10
"""Bytes for each entry of the vocabulary, over which the distributions of some texts are held together. With it the
estimate of a worker is 3.2 GB for SmolLM2-135M (runs took 2.0 to 2.7) and 7.0 for Gemma 3 270M (5.0 to 6.5)."""


def room_of(unit: Unit) -> Room:
    """What a unit declares, and estimates where it declares nothing.

    Args:
        unit: one that uses a model names its folder as `path` and its device as `device` in `local`.

    Returns:
        Its threads as cores, one GPU for a model on CUDA, all GPUs of this machine for one with a device map, and
        memory by the size of the weights and of the vocabulary.
    """
    if unit.room is not None:
        return unit.room
    place = str(unit.local.get("device", ""))
    gpus = 1 if place.startswith("cuda") else 0
    if place.startswith("device_map"):
        import torch

        gpus = torch.cuda.device_count()
    memory = PROCESS
    if "path" in unit.local:
        folder = Path(unit.local["path"])
        memory += PER_WEIGHT_BYTE * sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        memory += PER_TOKEN_TYPE * _vocabulary(folder)
    return Room(unit.threads, gpus, memory)


def _vocabulary(folder: Path) -> int:
    """The number of token types by the model's config; 0 where it does not say."""
    with suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int(config.get("vocab_size") or config["text_config"]["vocab_size"])
    return 0
