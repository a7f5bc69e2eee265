"""Kernels on the sparse rows of contexts: prefix counts, and looking up their entries."""

from __future__ import annotations

import numpy as np

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray


@kernel
def fill_prefixes(
    tokens: IntArray,
    offsets: IntArray,
    start: int,
    stop: IntArray,
    window: int,
    vocab_size: int,
    indptr: IntArray,
    indices: np.ndarray,
    data: FloatArray,
) -> None:
    """Write the counts of every prefix of length start .. stop[s] of every sequence s as CSR rows.

    With empty `indices` only `indptr` is written, so the caller learns how much room the rows need. Tokens present
    are kept as a sorted list that changes by one entry a step: a row costs what it holds.
    """
    only_count = indices.shape[0] == 0
    counts = np.zeros(vocab_size, np.int64)
    present = np.empty(vocab_size, np.int64)
    row = 0
    end = indptr[0]
    for s in range(offsets.shape[0] - 1):
        size = 0
        first = offsets[s]
        for t in range(1, stop[s] + 1):
            token = tokens[first + t - 1]
            if counts[token] == 0:
                size = _insert(present, size, token)
            counts[token] += 1
            if t > window:
                gone = tokens[first + t - 1 - window]
                counts[gone] -= 1
                if counts[gone] == 0:
                    size = _remove(present, size, gone)
            if t < start:
                continue
            if not only_count:
                for k in range(size):
                    indices[end + k] = present[k]
                    data[end + k] = counts[present[k]]
            end += size
            row += 1
            indptr[row] = end
        for k in range(size):
            counts[present[k]] = 0


@kernel
def _insert(present: IntArray, size: int, token: int) -> int:
    place = np.searchsorted(present[:size], token)
    for k in range(size, place, -1):
        present[k] = present[k - 1]
    present[place] = token
    return size + 1


@kernel
def _remove(present: IntArray, size: int, token: int) -> int:
    place = np.searchsorted(present[:size], token)
    for k in range(place, size - 1):
        present[k] = present[k + 1]
    return size - 1


@kernel
def find_in_rows(indptr: IntArray, indices: np.ndarray, rows: IntArray, tokens: IntArray, place: IntArray) -> None:
    """place[k] = position of token tokens[k] among the entries of CSR row rows[k], or -1; columns are sorted."""
    for k in range(rows.shape[0]):
        low, high = indptr[rows[k]], indptr[rows[k] + 1]
        end = high
        while low < high:
            middle = (low + high) >> 1
            if indices[middle] < tokens[k]:
                low = middle + 1
            else:
                high = middle
        place[k] = low if low < end and indices[low] == tokens[k] else -1
