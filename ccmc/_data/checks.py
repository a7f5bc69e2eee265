"""Arguments of the fits: checked, with the offending index and value in the message."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.types import FloatArray


def pair_values(values: ArrayLike, number: int, name: str) -> FloatArray:
    """[heads, pairs] finite values, one per pair that co-occurs."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != number:
        raise ValueError(f"{name} must have shape [heads, {number}], one value per pair, got {array.shape}")
    if not np.isfinite(array).all():
        head, at = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"{name}[{head}, {at}] is {array[head, at]}: it must be finite")
    return array


def checked_prior(prior: ArrayLike | None, size: int) -> FloatArray | None:
    """Logits [K, K] of a prior, or None for a flat one."""
    if prior is None:
        return None
    logits = np.asarray(prior, dtype=np.float64)
    if logits.shape != (size, size):
        raise ValueError(f"prior must have shape ({size}, {size}), got {logits.shape}")
    if not np.isfinite(logits).all():
        row, column = np.argwhere(~np.isfinite(logits))[0]
        raise ValueError(f"prior[{row}, {column}] is {logits[row, column]}: logits are finite")
    return logits


def checked_ridge(ridge: ArrayLike, heads: int) -> FloatArray:
    """[heads] strengths of the ridge, non-negative and finite."""
    values = np.asarray(ridge, dtype=np.float64)
    if values.shape not in ((), (heads,)):
        raise ValueError(f"ridge must be one number or [{heads}], got shape {values.shape}")
    bad = ~((values >= 0) & (values < np.inf))
    if bad.any():
        raise ValueError(f"ridge is {np.atleast_1d(values)[np.atleast_1d(bad)][0]}: it is non-negative and finite")
    return np.ascontiguousarray(np.broadcast_to(values, (heads,)))


def checked_weight(weight: ArrayLike | None, heads: int, rows: int) -> FloatArray:
    """[1 or heads, rows] weights of contexts, non-negative and finite; 1 where none are given."""
    if weight is None:
        return np.ones((1, rows))
    values = np.ascontiguousarray(weight, dtype=np.float64)
    if values.shape == (rows,):
        values = values[None]
    if values.shape not in ((1, rows), (heads, rows)):
        raise ValueError(f"weight must have shape [{rows}] or [{heads}, {rows}], got {values.shape}")
    bad = ~((values >= 0) & (values < np.inf))
    if bad.any():
        head, row = np.argwhere(bad)[0]
        raise ValueError(f"weight of context {row} is {values[head, row]}: weights are non-negative and finite")
    return values
