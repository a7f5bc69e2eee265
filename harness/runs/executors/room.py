"""What a unit needs of the machine that does it: cores, GPUs and memory. No row depends on it."""

from __future__ import annotations

from pathlib import Path

from harness.runs.units import Room, Unit

PROCESS = 2**30
"""Bytes of a worker with its libraries, before it has loaded a model."""
PER_WEIGHT_BYTE = 3
"""Bytes of memory per byte of the weights' files, which may hold 16 bits of what is computed in 32."""


def room_of(unit: Unit) -> Room:
    """What a unit declares, and estimates where it declares nothing.

    Args:
        unit: one that uses a model names its folder as `path` and its device as `device` in `local`.

    Returns:
        Its threads as cores, one GPU for a model on CUDA, all GPUs of this machine for one with a device map, and
        memory by the size of the weights.
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
        memory += PER_WEIGHT_BYTE * sum(file.stat().st_size for file in Path(unit.local["path"]).glob("*.safetensors"))
    return Room(unit.threads, gpus, memory)
