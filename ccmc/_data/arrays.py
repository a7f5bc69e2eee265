"""Arrays that users give: made into the types that the package works with, or refused by index and value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ccmc._data.types import Csr, FloatArray, IntArray

_LONGER_THAN_ANY = np.iinfo(np.int64).max

Sequences: TypeAlias = Sequence[Sequence[int]] | Sequence[IntArray] | IntArray


def as_tokens(tokens: NDArray[Any], vocab_size: int, name: str) -> IntArray:
    """Integers in 0 ... K - 1 as int64, or ValueError naming index and value."""
    if tokens.size == 0:
        return tokens.astype(np.int64)
    if tokens.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {tokens.dtype}")
    # A column of a table is read once, not three times.
    tokens = np.ascontiguousarray(tokens)
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        at = np.unravel_index(int(np.argmax((tokens < 0) | (tokens >= vocab_size))), tokens.shape)
        place = ", ".join(str(int(k)) for k in at)
        raise ValueError(f"{name}[{place}] is {tokens[at]}: outside the vocabulary 0 ... {vocab_size - 1}")
    return tokens.astype(np.int64, copy=False)


def flatten(sequences: Sequences, vocab_size: int) -> tuple[IntArray, IntArray]:
    """All tokens one after another and the offsets [sequences + 1] at which each sequence begins."""
    if vocab_size < 1:
        raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
    if isinstance(sequences, np.ndarray) and sequences.ndim != 2:
        raise ValueError(f"sequences as an array must be [sequences, length], got shape {sequences.shape}")
    parts = [np.asarray(sequence) for sequence in sequences]
    for s, part in enumerate(parts):
        if part.ndim != 1:
            raise ValueError(f"sequence {s} must be one-dimensional, got shape {part.shape}")
    filled = [part for part in parts if part.size]
    tokens = np.concatenate(filled) if filled else np.empty(0, np.int64)
    whole = all(part.dtype.kind in "iu" for part in filled)
    if not whole or (tokens.size and (tokens.min() < 0 or tokens.max() >= vocab_size)):
        for s, part in enumerate(parts):  # to name the first that is wrong
            as_tokens(part, vocab_size, f"sequences[{s}]")
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return tokens.astype(np.int64, copy=False), offsets


def as_floats(values: NDArray[Any], name: str) -> FloatArray:
    """Contiguous float64, or ValueError where the values are no numbers."""
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers, got {values.dtype}")
    return np.ascontiguousarray(values, dtype=np.float64)


def as_positive(value: int, name: str) -> int:
    """An integer of at least 1, or ValueError naming it."""
    if int(value) != value or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value}")
    return int(value)


def as_width(window: int | None) -> int:
    """How many of its last tokens a context keeps: `window`, or more than any sequence has where that is None."""
    return _LONGER_THAN_ANY if window is None else as_positive(window, "window")


def canonical(matrix: Any) -> Csr:
    """Float64 CSR with sorted columns, no duplicates and no stored zeros; the caller's matrix is never changed."""
    csr: Csr = sparse.csr_array(matrix, dtype=np.float64)
    if not csr.has_canonical_format or (csr.data == 0).any():
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    return csr


def stored_entries(table: Any) -> tuple[IntArray, IntArray, FloatArray]:
    """Row, column and value of every stored entry."""
    row = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    return row, table.indices.astype(np.int64), table.data
