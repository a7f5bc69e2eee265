"""The (query, token) pairs that occur, numbered: what a fit has numbers for.

A chain over K tokens has K x K logits, but data speak only about pairs where the token was in a context of the query.
`Pairs` lists them by query, then token, as the rows of a CSR matrix do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ccmc._data.types import Csr, FloatArray, IntArray

# Largest K x K table that is worth writing to look up a few pairs.
_TABLE = 1 << 16


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of contexts, and which rows they come from."""

    order: IntArray
    """[n] rows of the contexts, sorted by query."""
    query_ptr: IntArray
    """[K + 1] rows of query q are order[query_ptr[q]:query_ptr[q + 1]]."""
    ptr: IntArray
    """[K + 1] pairs of query q are ptr[q] ... ptr[q + 1] - 1."""
    token: IntArray
    """[pairs] the token of each pair, ascending within a query."""
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
        from ccmc._data.rows import find_in_rows

        place = np.empty(len(query), np.int64)
        find_in_rows(self.ptr, self.token, query.astype(np.int64), token.astype(np.int64), place)
        return place

    def number(self, query: IntArray, token: IntArray) -> IntArray:
        """Number of each pair (query[k], token[k]), all of which occur."""
        size = len(self.ptr) - 1
        if size * size > max(_TABLE, len(query)):
            return self.find(query, token)
        table = np.zeros(size * size, np.int64)
        table[self.query * size + self.token] = np.arange(len(self.token))
        numbers: IntArray = table[query * size + token]
        return numbers

    @property
    def _group(self) -> IntArray:
        """[pairs] number of each pair's component among those of all queries."""
        first = np.concatenate([[0], np.cumsum(self.components)])
        group: IntArray = first[self.query] + self.component
        return group

    def component_sizes(self) -> IntArray:
        """[pairs] how many tokens the component of each pair has."""
        group = self._group
        sizes: IntArray = np.bincount(group)[group]
        return sizes

    def component_means(self, values: FloatArray) -> FloatArray:
        """[pairs] mean of `values` [pairs] over the component that each pair is in."""
        group = self._group
        means: FloatArray = np.bincount(group, weights=values)[group] / self.component_sizes()
        return means


def pattern(pairs: Pairs) -> Csr:
    """The pairs as a CSR matrix [K, K] of ones."""
    size = len(pairs.ptr) - 1
    return sparse.csr_array((np.ones(len(pairs.token)), pairs.token, pairs.ptr), shape=(size, size))
