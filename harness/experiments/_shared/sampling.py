"""Small steps that experiments on chains share: counts of prompts, draws from rows, divergence from a teacher."""

from __future__ import annotations

from typing import Any

import numpy as np

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def count_tokens(prompts: IntArray, vocab_size: int) -> FloatArray:
    """Counts [n, K] of prompts [n, L]."""
    flat = prompts + vocab_size * np.arange(len(prompts))[:, None]
    counts: FloatArray = (
        np.bincount(flat.ravel(), minlength=len(prompts) * vocab_size).reshape(-1, vocab_size).astype(float)
    )
    return counts


def sample_rows(probability: FloatArray, rng: np.random.Generator) -> IntArray:
    """One token [n] from each row of probability [n, K]."""
    cumulative = np.cumsum(probability, axis=1)
    draws = rng.random(len(probability)) * cumulative[:, -1]
    chosen: IntArray = (cumulative <= draws[:, None]).sum(axis=1)
    return chosen


def excess_risk(teacher: FloatArray, other: FloatArray) -> float:
    """Mean KL(teacher || other) over contexts: what `other` loses in nats per token, without sampling noise."""
    inside = teacher > 0
    return float(np.sum(teacher[inside] * (np.log(teacher[inside]) - np.log(other[inside]))) / len(teacher))
