"""Tensors that old files hold although the model computes them: causal masks, angles of rotation, positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

TOLERANCE = 2.0**-7  # relative: such tensors were stored in 16 bits together with the weights


def _stored(file: Path, key: str) -> torch.Tensor:
    with safe_open(file, framework="pt") as opened:
        found: torch.Tensor = opened.get_tensor(key)
    return found


def _is_mask(tensor: torch.Tensor) -> bool:
    """Ones on and below the diagonal of the last two dimensions, zeros above, nothing else."""
    if tensor.ndim < 2 or tensor.shape[-1] != tensor.shape[-2] or tensor.numel() != tensor.shape[-1] ** 2:
        return False
    square = tensor.reshape(tensor.shape[-2:]).double()
    return bool(torch.equal(square, torch.ones_like(square).tril()))


def may_be_computed(key: str) -> bool:
    """Is a tensor of a file, by its name, of a kind that models compute?"""
    return key.rpartition(".")[2] in {"bias", "masked_bias", "position_ids", "inv_freq"}


def holds_what_the_model_computes(model: Any, key: str, file: Path) -> bool:
    """Is a tensor of a file what the model computes by itself, so that it is harmless to leave it aside?

    Only known kinds, and only where the values agree: a causal mask, the number that masked scores get, positions from
    0 up, and the angles of rotation that the config gives.

    Args:
        model: as it was loaded.
        key: name of the tensor, one that `may_be_computed`.
        file: that holds it.
    """
    last, tensor = key.rpartition(".")[2], _stored(file, key)
    if last == "bias":
        return _is_mask(tensor)
    if last == "masked_bias":
        return tensor.numel() == 1 and float(tensor) <= -1e4
    if last == "position_ids":
        return torch.equal(tensor.reshape(-1).long(), torch.arange(tensor.numel()))
    if last != "inv_freq":
        return False
    own = [buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq")]
    return any(
        mine.shape == tensor.shape
        and torch.allclose(mine.double(), tensor.to(mine.device).double(), rtol=TOLERANCE, atol=0)
        for mine in own
    )
