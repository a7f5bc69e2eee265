"""Effects of token pairs that few numbers make, so that pairs which no text has shown have one too.

effect[query, key] = level[key] + x_query^T M y_key, where x and y are the queries and keys that a head makes of the
static inputs, without positions, in units of their spread; x ends in a constant, so that M also ranks keys by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from harness.attention.capture import key_heads
from harness.attention.loop_terms import PairForm
from harness.attention.static_inputs import StaticHeads
from harness.data.texts import FloatArray, IntArray

CONSTANT = 3.0  # a ridge on M holds the ranking of keys less than what depends on the query
Features = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class TokenFeatures:
    """What a layer's heads make of tokens.

    Attributes:
        query: [H, K, d + 1], key: [G, K, d].
        group: [H] the key head of each head.
    """

    query: Features
    key: Features
    group: IntArray

    @classmethod
    def of(cls, heads: StaticHeads) -> TokenFeatures:
        """The features of a layer's tokens, the first position left out."""
        call, size = heads.at_start, len(heads.ids)
        query, key = (_standard(part[:, :size].double().cpu().numpy()) for part in (call.query, call.key))
        group = key_heads(len(query), len(key)).numpy()
        return cls(np.concatenate([query, np.full((*query.shape[:2], 1), CONSTANT)], axis=2), key, group)

    @property
    def shape(self) -> tuple[int, int, int]:
        """K, and the two sides of M."""
        return self.key.shape[1], self.query.shape[2], self.key.shape[2]

    @property
    def size(self) -> int:
        """How many numbers one head takes."""
        tokens, rows, columns = self.shape
        return tokens + rows * columns

    def parts(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The numbers [size] of one head as level [K] and M [d + 1, d]."""
        tokens, rows, columns = self.shape
        return x[:tokens], x[tokens : tokens + rows * columns].reshape(rows, columns)

    def effect(self, head: int, x: FloatArray, query: IntArray, key: IntArray) -> FloatArray:
        """[P] the effect of each (query, key) of one head; pairs sorted by query are read fastest."""
        level, M = self.parts(x)
        found: FloatArray = np.empty(len(query))
        _products(self.query[head] @ M, self.key[self.group[head]], query, key, level, found)
        return found

    def form(self, effects: FloatArray) -> PairForm:
        """The effects of all heads from their numbers [H, size]."""
        level, matrix = zip(*(self.parts(x) for x in effects), strict=True)
        return PairForm(np.stack(level), np.stack(matrix), CONSTANT)

    def gradient(self, head: int, of_pair: FloatArray, query: IntArray, key: IntArray) -> FloatArray:
        """[size] the derivative by the numbers of a head of what has the derivative `of_pair` [P] by the effects."""
        tokens, _, columns = self.shape
        summed = np.zeros((tokens, columns))  # keys, weighted, of each query
        _gather(of_pair, self.key[self.group[head]], query, key, summed)
        of_level = np.bincount(key, weights=of_pair, minlength=tokens)
        return np.concatenate([of_level, (self.query[head].T @ summed).reshape(-1)])

    def table(self, head: int, x: FloatArray, types: IntArray) -> np.ndarray[Any, np.dtype[np.float32]]:
        """[U, U] float32, the effect of each (query, key) among some tokens."""
        level, M = self.parts(x)
        query = (self.query[head][types] @ M).astype(np.float32)
        key = self.key[self.group[head]][types].astype(np.float32)
        found: np.ndarray[Any, np.dtype[np.float32]] = query @ key.T
        found += level[types].astype(np.float32)
        return found


def _standard(values: FloatArray) -> FloatArray:
    """Centre [H, K, d], and divide by the spread of each head."""
    centred = values - values.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.square(centred).mean(axis=(1, 2), keepdims=True))
    found: FloatArray = centred / np.maximum(spread, 1e-12)
    return found


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"}, forceinline=True)
def _products(x, y, query, key, level, found):  # type: ignore[no-untyped-def]
    """Put level[key] + x[query] . y[key] [P] into `found`."""
    for p in range(len(query)):
        left, right, total = x[query[p]], y[key[p]], 0.0
        for d in range(len(left)):
            total += left[d] * right[d]
        found[p] = level[key[p]] + total


@numba.njit(cache=True, nogil=True, fastmath={"contract", "nsz", "reassoc"}, forceinline=True)
def _gather(weight, y, query, key, summed):  # type: ignore[no-untyped-def]
    """Add weight * y[key] to the row of its query in `summed` [K, d]."""
    for p in range(len(query)):
        row, right, share = summed[query[p]], y[key[p]], weight[p]
        for d in range(len(right)):
            row[d] += share * right[d]
