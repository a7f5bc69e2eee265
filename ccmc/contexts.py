"""Contexts: what a chain needs to know of a prompt.

A prompt acts on its next token through two things only: the counts of its tokens and its last token, the *query*
(Ildiz et al. 2024). Counts are dense or sparse; every check names the index and the value it failed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ccmc._data.pairs import Pairs, number_pairs, pattern
from ccmc._data.types import Csr, FloatArray, IntArray

_NO_WINDOW = np.iinfo(np.int64).max
# Numbers in a dense table from which checks are compiled.
_LARGE = 1 << 20

Sequences: TypeAlias = Sequence[Sequence[int]] | Sequence[IntArray] | IntArray


@dataclass(frozen=True, eq=False)
class Contexts:
    """Counts and queries of n contexts over a vocabulary of K tokens.

    Args:
        counts: [n, K] how often each token is in each context, dense or scipy CSR; any non-negative numbers, because
            scaling a row changes nothing. Copied only where the type or the order of entries has to change.
        query: [n] last token of each context, 0 ... K - 1.

    Raises:
        ValueError: a shape, count, query or empty context is wrong; the message names index and value.
    """

    counts: FloatArray | Csr
    query: IntArray

    def __post_init__(self) -> None:
        counts = canonical(self.counts) if sparse.issparse(self.counts) else np.asarray(self.counts)
        if counts.ndim != 2:
            raise ValueError(f"counts must have two dimensions [contexts, tokens], got shape {counts.shape}")
        if not sparse.issparse(counts):
            counts = as_floats(counts, "counts")
        rows, vocab_size = counts.shape
        query = np.asarray(self.query)
        if query.shape != (rows,):
            raise ValueError(f"query must have shape ({rows},) to go with counts {counts.shape}, got {query.shape}")
        query = as_tokens(query, vocab_size, "query")
        if not self._sound_at_a_glance(counts, query):
            _check_counts(counts)
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "query", query)

    def _sound_at_a_glance(self, counts: FloatArray | Csr, query: IntArray) -> bool:
        """Whether a large dense table was found to be sound while what a fit reads was made of it."""
        if not isinstance(counts, np.ndarray) or counts.size < _LARGE:
            return False
        from ccmc._data.compact import compact_if_sound

        return compact_if_sound(self, counts, query)

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    @property
    def vocab_size(self) -> int:
        """K, the number of tokens."""
        return int(self.counts.shape[1])

    @cached_property
    def sparse_counts(self) -> Csr:
        """[n, K] the counts as CSR with sorted columns and no stored zeros."""
        if isinstance(self.counts, sparse.csr_array):
            return self.counts
        return sparse.csr_array(self.counts)

    @cached_property
    def numbered_pairs(self) -> Pairs:
        """The pairs that occur, found once and kept."""
        return number_pairs(self.sparse_counts, self.query)

    def pairs(self) -> Csr:
        """[K, K] ones where the token (column) is in some context of the query (row); columns sorted."""
        return pattern(self.numbered_pairs)

    def take(self, rows: IntArray | NDArray[np.bool_]) -> Contexts:
        """The contexts at `rows` (indices or mask)."""
        return Contexts(self.counts[rows], self.query[rows])

    @classmethod
    def from_sequences(
        cls, sequences: Sequences, vocab_size: int, start: int = 1, window: int | None = None
    ) -> Contexts:
        """Every prefix of length start, start + 1, ... of every sequence, the whole sequence included.

        Args:
            sequences: token sequences of any lengths, or an int array [sequences, length].
            vocab_size: K.
            start: length of the shortest prefix.
            window: count only the last `window` tokens of a prefix (a sliding layer), or None.

        Returns:
            Sparse contexts, one row per prefix, in the order of the sequences.
        """
        tokens, offsets = flatten(sequences, vocab_size)
        return prefixes(tokens, offsets, vocab_size, start, np.diff(offsets), window)

    @classmethod
    def from_prompts(cls, prompts: Sequences, vocab_size: int, window: int | None = None) -> Contexts:
        """One context per prompt: all its tokens, or the last `window` of them."""
        tokens, offsets = flatten(prompts, vocab_size)
        length = np.diff(offsets)
        if (length == 0).any():
            raise ValueError(f"prompt {int(np.argmin(length))} is empty")
        kept = length if window is None else np.minimum(length, _positive(window, "window"))
        position = np.arange(len(tokens)) - np.repeat(offsets[1:] - kept, length)
        row = np.repeat(np.arange(len(length)), length)[position >= 0]
        shape = (len(length), vocab_size)
        counts = sparse.csr_array(sparse.coo_array((np.ones(len(row)), (row, tokens[position >= 0])), shape=shape))
        return cls(counts, tokens[offsets[1:] - 1])


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
        as_tokens(part, vocab_size, f"sequences[{s}]")
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    tokens = np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
    return tokens, offsets


def prefixes(
    tokens: IntArray, offsets: IntArray, vocab_size: int, start: int, stop: IntArray, window: int | None
) -> Contexts:
    """Contexts of the prefixes of length start ... stop[s] of each sequence s."""
    from ccmc._data.rows import fill_prefixes

    _positive(start, "start")
    width = _NO_WINDOW if window is None else _positive(window, "window")
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
    return Contexts(counts, query)


def _positive(value: int, name: str) -> int:
    if int(value) != value or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value}")
    return int(value)


def as_floats(values: NDArray[Any], name: str) -> FloatArray:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers, got {values.dtype}")
    return np.ascontiguousarray(values, dtype=np.float64)


def canonical(matrix: Any) -> Csr:
    """Float64 CSR with sorted columns, no duplicates and no stored zeros; the caller's matrix is never changed."""
    csr: Csr = sparse.csr_array(matrix, dtype=np.float64)
    if not csr.has_canonical_format or (csr.data == 0).any():
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    return csr


def _check_counts(counts: FloatArray | Csr) -> None:
    values = counts.data if isinstance(counts, sparse.csr_array) else counts
    # One pass for the usual case; the place of a fault is looked for only when there is one.
    if values.size and not (values.min() >= 0 and values.max() < np.inf):
        row, token, values = stored_entries(sparse.csr_array(counts))
        at = int(np.argmax(~((values >= 0) & (values < np.inf))))
        raise ValueError(f"counts[{row[at]}, {token[at]}] is {values[at]}: counts are non-negative and finite")
    empty = (np.diff(counts.indptr) == 0) if isinstance(counts, sparse.csr_array) else ~counts.any(axis=1)
    if empty.any():
        raise ValueError(f"context {int(np.argmax(empty))} is empty: all its counts are 0")


def stored_entries(table: Any) -> tuple[IntArray, IntArray, FloatArray]:
    """Row, column and value of every stored entry."""
    row = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    return row, table.indices.astype(np.int64), table.data
