"""Numbers of 16 bits: weights of large models; what is computed from them has 32 bits at least."""

from __future__ import annotations

import torch

HALVES = (torch.bfloat16, torch.float16)


def full(values: torch.Tensor) -> torch.Tensor:
    """Values of 16 bits as float32; others as they are, and not copied."""
    return values.float() if values.dtype in HALVES else values


def rounding(dtype: torch.dtype, least: float) -> float:
    """A bound on differences that rounding of a few sums makes: eight times its unit, and at least so much."""
    return max(least, 8.0 * torch.finfo(dtype).eps) if dtype in HALVES else least
