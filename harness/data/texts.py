"""Texts as contexts: each chosen position of a sequence is a query, the tokens up to it are its keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from ccmc import Contexts

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


class Text:
    """One token sequence and the contexts along it.

    Args:
        tokens: [T] local ids.
        start: the first query position.
        stop: one past the last query position; default T.
        first: the first key position. 1 leaves the first position, the attention sink, out of every context.
        window: how many positions a query sees, itself included; all before it by default.

    Attributes:
        positions: [n] query positions.
        types: [U] the distinct tokens from `first` on, sorted; columns of everything that is per token.
        key_index: [T - first] the column of each key position.
    """

    def __init__(
        self,
        tokens: Sequence[int] | IntArray,
        start: int,
        stop: int | None = None,
        first: int = 0,
        window: int | None = None,
    ) -> None:
        self.tokens: IntArray = np.asarray(tokens, dtype=np.int64)
        if not first <= start:
            raise ValueError(f"start {start} is before the first key position {first}")
        self.first = first
        self.window = window
        self.positions: IntArray = np.arange(start, len(self.tokens) if stop is None else stop)
        self.types, self.key_index = np.unique(self.tokens[first:], return_inverse=True)

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def query(self) -> IntArray:
        """[n] the column of each query token."""
        return self.key_index[self.positions - self.first]

    @cached_property
    def counts(self) -> FloatArray:
        """[n, U] how often each type occurs in the context of each query, the query itself included."""
        seen = np.zeros((len(self.key_index), len(self.types)))
        seen[np.arange(len(self.key_index)), self.key_index] = 1.0
        before = np.cumsum(seen, axis=0)
        counts: FloatArray = before[self.positions - self.first]
        if self.window is not None:
            gone = self.positions - self.first - self.window  # the last key position that has left the window
            counts[gone >= 0] -= before[gone[gone >= 0]]
        return counts

    @property
    def seen(self) -> IntArray:
        """[n] how many key positions stand in the context of each query."""
        number: IntArray = self.positions - self.first + 1
        return number if self.window is None else np.minimum(number, self.window)

    @property
    def keys(self) -> IntArray:
        """[T - first] the key positions."""
        return np.arange(self.first, len(self.tokens))

    @cached_property
    def visible(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """[n, T - first] is a key position in the context of a query?"""
        distance = self.positions[:, None] - self.keys[None, :]
        seen: np.ndarray[Any, np.dtype[np.bool_]] = distance >= 0
        return seen if self.window is None else seen & (distance < self.window)

    @cached_property
    def pairs(self) -> tuple[IntArray, IntArray]:
        """Columns of query and key of every pair that co-occurs in a context, by query and then key: [p], [p]."""
        size = len(self.types)
        if self.window is not None:
            asks = np.zeros((size, len(self)), dtype=np.float32)
            asks[self.query, np.arange(len(self))] = 1.0
            query, key = np.nonzero(asks @ (self.counts > 0).astype(np.float32))
            return query, key
        first, last = np.full(size, len(self.tokens)), np.full(size, -1)
        np.minimum.at(first, self.key_index, np.arange(self.first, len(self.tokens)))
        np.maximum.at(last, self.query, self.positions)
        query, key = np.nonzero(first[None, :] <= last[:, None])
        return query, key

    def per_token(self, per_position: FloatArray) -> FloatArray:
        """Sum a quantity over the positions of each type: [..., n, T - first] -> [..., n, U]."""
        columns = np.zeros((len(self.key_index), len(self.types)))
        columns[np.arange(len(self.key_index)), self.key_index] = 1.0
        summed: FloatArray = per_position @ columns
        return summed


def stack(texts: Sequence[Text], vocab_size: int) -> Contexts:
    """The contexts of several texts, one under the other, over the whole local vocabulary (CSR)."""
    data, columns, lengths, queries = [], [], [], []
    for text in texts:
        rows, cols = np.nonzero(text.counts)
        data.append(text.counts[rows, cols])
        columns.append(text.types[cols])
        lengths.append(np.bincount(rows, minlength=len(text)))
        queries.append(text.types[text.query])
    pointers = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    shape = (len(pointers) - 1, vocab_size)
    counts = sparse.csr_array((np.concatenate(data), np.concatenate(columns), pointers), shape=shape)
    return Contexts(counts, np.concatenate(queries))


class LocalVocabulary:
    """The types that occur in a run's texts, numbered from 0 in the order of their ids.

    Args:
        sequences: token ids in the model's vocabulary, of training and held-out texts alike: the numbering says
            nothing about how often a token occurs.
    """

    def __init__(self, sequences: Iterable[Sequence[int] | IntArray]) -> None:
        self.ids: IntArray = np.unique(np.concatenate([np.asarray(s, dtype=np.int64) for s in sequences]))

    def __len__(self) -> int:
        return len(self.ids)

    def local(self, tokens: Sequence[int] | IntArray) -> IntArray:
        """Local ids of token ids."""
        return np.searchsorted(self.ids, np.asarray(tokens, dtype=np.int64))
