"""The (query, token) pairs that occur, numbered: what a fit has numbers for.

A chain over K tokens has K x K logits, but data speak only about pairs where the token was in a context of the query.
`Pairs` lists them by query, then token, as the rows of a CSR matrix do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ccmc._types import Csr, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of contexts, and how the contexts' entries refer to them."""

    order: IntArray
    """[n] rows of the contexts, sorted by query."""
    query_ptr: IntArray
    """[K + 1] rows of query q are order[query_ptr[q]:query_ptr[q + 1]]."""
    ptr: IntArray
    """[K + 1] pairs of query q are ptr[q] ... ptr[q + 1] - 1."""
    token: IntArray
    """[pairs] the token of each pair, ascending within a query."""
    local: NDArray[np.uint32]
    """[entries] which of its query's pairs each entry of the contexts' CSR counts belongs to, from 0."""
    component: IntArray
    """[pairs] co-occurrence component of the pair's token among its query's tokens, from 0."""
    components: IntArray
    """[K] number of components among the tokens seen with query q (0 for a query that never occurs)."""

    @property
    def query(self) -> IntArray:
        """[pairs] the query of each pair."""
        return np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))

    def find(self, query: IntArray, token: IntArray) -> IntArray:
        """Number of each pair (query[k], token[k]), or -1 where it does not occur."""
        from ccmc._rows import find_in_rows

        place = np.empty(len(query), np.int64)
        find_in_rows(self.ptr, self.token, query.astype(np.int64), token.astype(np.int64), place)
        return place

    def component_means(self, values: FloatArray) -> FloatArray:
        """[pairs] mean of `values` [pairs] over the component that each pair is in."""
        first = np.concatenate([[0], np.cumsum(self.components)])
        group = first[self.query] + self.component
        size = np.bincount(group, minlength=int(first[-1]))
        total = np.bincount(group, weights=values, minlength=int(first[-1]))
        means: FloatArray = (total / np.maximum(size, 1))[group]
        return means


def number_pairs(counts: Csr, query: IntArray) -> Pairs:
    """Find the pairs of contexts given as canonical CSR counts [n, K] and queries [n]."""
    from ccmc import _rows

    vocab_size = counts.shape[1]
    indptr = counts.indptr.astype(np.int64)
    order = np.argsort(query, kind="stable").astype(np.int64)
    query_ptr = np.concatenate([[0], np.cumsum(np.bincount(query, minlength=vocab_size))]).astype(np.int64)
    ptr = np.empty(vocab_size + 1, np.int64)
    _rows.count_pairs(indptr, counts.indices, order, query_ptr, ptr)
    token = np.empty(ptr[-1], np.int64)
    local = np.empty(counts.nnz, np.uint32)
    component = np.empty(ptr[-1], np.int64)
    components = np.empty(vocab_size, np.int64)
    _rows.number_pairs(indptr, counts.indices, order, query_ptr, ptr, token, local, component, components)
    return Pairs(order, query_ptr, ptr, token, local, component, components)


def pattern(pairs: Pairs) -> Csr:
    """The pairs as a CSR matrix [K, K] of ones."""
    size = len(pairs.ptr) - 1
    return sparse.csr_array((np.ones(len(pairs.token)), pairs.token, pairs.ptr), shape=(size, size))
