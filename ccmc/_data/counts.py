"""Counts of tokens: checked, and taken from sequences as sparse rows."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ccmc._data.arrays import as_positive, as_width, stored_entries
from ccmc._data.types import Csr, FloatArray, IntArray


def check_counts(counts: FloatArray | Csr) -> None:
    """ValueError unless counts [n, K] are non-negative and finite and no context is empty."""
    values = counts.data if isinstance(counts, sparse.csr_array) else counts
    # One pass for the usual case; the place of a fault is looked for only when there is one.
    if values.size and not (values.min() >= 0 and values.max() < np.inf):
        row, token, values = stored_entries(sparse.csr_array(counts))
        at = int(np.argmax(~((values >= 0) & (values < np.inf))))
        raise ValueError(f"counts[{row[at]}, {token[at]}] is {values[at]}: counts are non-negative and finite")
    empty = (np.diff(counts.indptr) == 0) if isinstance(counts, sparse.csr_array) else ~counts.any(axis=1)
    if empty.any():
        raise ValueError(f"context {int(np.argmax(empty))} is empty: all its counts are 0")


def prefix_counts(
    tokens: IntArray, offsets: IntArray, vocab_size: int, start: int, stop: IntArray, window: int | None
) -> tuple[Csr, IntArray]:
    """Counts [n, K] and queries [n] of the prefixes of length start ... stop[s] of each sequence s."""
    from ccmc._data.rows import fill_prefixes

    as_positive(start, "start")
    width = as_width(window)
    rows = np.maximum(stop - start + 1, 0)
    if rows.sum() == 0:
        raise ValueError(f"no sequence is long enough for a prefix of length {start}")
    indptr = np.zeros(int(rows.sum()) + 1, np.int64)
    indices, data = np.empty(0, np.int32), np.empty(0)
    fill_prefixes(tokens, offsets, start, stop, width, vocab_size, indptr, indices, data)
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1])
    fill_prefixes(tokens, offsets, start, stop, width, vocab_size, indptr, indices, data)
    sequence = np.repeat(np.arange(len(rows)), rows)
    length = start + np.arange(len(sequence)) - np.repeat(np.cumsum(rows) - rows, rows)
    query = tokens[offsets[sequence] + length - 1]
    counts = sparse.csr_array((data, indices, indptr), shape=(len(sequence), vocab_size))
    return counts, query


def prompt_counts(tokens: IntArray, offsets: IntArray, vocab_size: int, window: int | None) -> tuple[Csr, IntArray]:
    """Counts [n, K] and queries [n] of whole prompts, or of their last `window` tokens."""
    length = np.diff(offsets)
    if (length == 0).any():
        raise ValueError(f"prompt {int(np.argmin(length))} is empty")
    kept = np.minimum(length, as_width(window))
    position = np.arange(len(tokens)) - np.repeat(offsets[1:] - kept, length)
    row = np.repeat(np.arange(len(length)), length)[position >= 0]
    shape = (len(length), vocab_size)
    counts = sparse.csr_array(sparse.coo_array((np.ones(len(row)), (row, tokens[position >= 0])), shape=shape))
    return counts, tokens[offsets[1:] - 1]
