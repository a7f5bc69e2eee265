"""Contexts as a fit reads them: rows sorted by query, in the smallest types, tokens numbered within their query.

A pass over the rows is bound by memory, so counts are single bytes wherever they are small integers. Rows that hold
a quarter of their query's tokens or more are written out in full (`dense`), padded to a multiple of the vector
length; others list their tokens. Which tokens a query saw, and which of them occurred together, is found on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccmc._data.pairs import Pairs
from ccmc._data.types import Csr, FloatArray, IntArray

_DENSE_SHARE = 0.25
_SAMPLE = 1000
_PAD = 8
_TABLE = 1 << 22
# Logarithms of what a byte can hold, and of 0, which is never read.
_LOGARITHMS = np.log(np.maximum(np.arange(256), 1))


@dataclass(frozen=True, eq=False)
class CompactRows:
    """Rows of contexts, sorted by query."""

    pairs: Pairs
    """The pairs that occur, and the rows of each query."""
    dense: bool
    """Whether rows are written out in full."""
    indptr: IntArray
    """[n + 1] entries of row r (in sorted order) are indptr[r] ... indptr[r + 1] - 1."""
    local: NDArray[Any]
    """[entries] number of each entry's token among its query's tokens; empty for dense rows, where place tells it."""
    counts: NDArray[Any]
    """[entries] counts; uint8 where all are small integers, float64 otherwise."""

    @property
    def entries(self) -> FloatArray:
        """[K] entries of each query's rows, its share of the work."""
        ptr = self.pairs.query_ptr
        share: FloatArray = (self.indptr[ptr[1:]] - self.indptr[ptr[:-1]]).astype(np.float64)
        return share

    def arrays(self) -> tuple[bool, IntArray, NDArray[Any], NDArray[Any]]:
        """What the kernels take: dense, indptr, local, counts."""
        return self.dense, self.indptr, self.local, self.counts


def compact_dense(query: IntArray, table: FloatArray) -> CompactRows | None:
    """Dense counts [n, K] as compact rows; None where most of the table is empty, which is better listed."""
    if not _mostly_filled(table):
        return None
    return _from_dense(query, table, np.uint8) or _from_dense(query, table, np.float64)


def compact_small_integers(query: IntArray, table: FloatArray) -> CompactRows | None:
    """Dense counts [n, K] as compact rows of single bytes; None where the counts are no small integers or none at all.

    Rows that come back are sound: finite, non-negative, and none is empty.
    """
    return _from_dense(query, table, np.uint8) if _mostly_filled(table) else None


@dataclass(frozen=True)
class Emitted:
    """What a fit needs of the tokens that rows emitted, one for each row."""

    wins: FloatArray
    """[pairs] weight of the rows that emitted the pair's token."""
    log_count_mass: float
    """Sum of weight x log of the count of the emitted token."""
    numbers: NDArray[np.int32]
    """[n] number of each row's token among its query's tokens, in the order of the compact rows."""


def look_up_emitted(rows: CompactRows, tokens: IntArray, weight: FloatArray | None) -> Emitted | None:
    """Look up one token for each of the dense rows [n], of weight [n] or 1; None unless each is in its row."""
    from ccmc._data.compact_kernels import read_emitted

    pairs = rows.pairs
    size = len(pairs.ptr) - 1
    place = np.full((size, size), -1)
    place[pairs.query, pairs.token] = np.arange(len(pairs.token)) - np.repeat(pairs.ptr[:-1], np.diff(pairs.ptr))
    wins, mass, numbers = np.zeros(len(pairs.token)), np.zeros(size), np.empty(len(tokens), np.int32)
    weights = np.empty(0) if weight is None else weight

    def read(first: int, last: int) -> bool:
        return read_emitted(
            first, last, pairs.order, pairs.query_ptr, tokens, weights, pairs.ptr, place, rows.indptr, rows.counts,
            _LOGARITHMS, wins, mass, numbers,
        )  # fmt: skip

    whole = _in_parts(read, size, len(tokens))
    return Emitted(wins, float(mass.sum()), numbers) if whole else None


def tokens_of_unit_vectors(table: FloatArray) -> IntArray | None:
    """The place of the 1 in every row of a dense table [n, K]; None where a row is no unit vector."""
    from ccmc._data.compact_kernels import ones_of_rows

    if len(table) == 0 or not ones_of_rows(0, 1, table, np.empty(1, np.int64)):
        return None
    place = np.empty(len(table), np.int64)
    found = _in_parts(lambda first, last: ones_of_rows(first, last, table, place), len(table), len(table))
    return place if found else None


def _mostly_filled(table: FloatArray) -> bool:
    if len(table) == 0:
        return False
    step = max(1, len(table) // _SAMPLE)
    return bool((table[::step] > 0).mean() >= _DENSE_SHARE)


def _from_dense(query: IntArray, table: FloatArray, kind: Any) -> CompactRows | None:
    """Compact rows with counts of type `kind`; None where that cannot hold the counts, or a row has none."""
    from ccmc._data import compact_kernels as kernels

    rows, size = table.shape
    order, rank, query_ptr = kernels.sorted_by_query(query, size)
    stride = -(-size // _PAD) * _PAD
    counts: NDArray[Any] = np.zeros(rows * stride, kind)
    words = counts.view(np.uint64)
    bits = np.zeros((size, len(words) // rows), np.uint64)

    def copy(first: int, last: int) -> bool:
        return (kernels.copy_bytes if kind is np.uint8 else kernels.copy_floats)(
            first, last, table, rank, stride, counts
        )

    def look(first: int, last: int) -> bool:
        return kernels.seen_words(first, last, query_ptr, words, bits)

    if not (_in_parts(copy, rows, rows) and _in_parts(look, size, rows)):
        return None
    seen = bits.view(kind)[:, :size] != 0
    number = seen.sum(axis=1)
    ptr = np.concatenate([[0], np.cumsum(number)]).astype(np.int64)
    token = np.nonzero(seen)[1].astype(np.int64)
    indptr = np.arange(0, (rows + 1) * stride, stride, dtype=np.int64)
    if (number[np.diff(query_ptr) > 0] < size).any():
        # Columns that a query never saw are taken out, in place.
        indptr, used = kernels.squeeze(query_ptr, ptr, token, stride, _PAD, counts)
        counts = counts[:used].copy()
    return _finish(order, query_ptr, ptr, token, True, indptr, np.empty(0, np.uint8), counts)


def compact_sparse(query: IntArray, table: Csr) -> CompactRows:
    """Canonical CSR counts [n, K] as compact rows."""
    from ccmc._data import compact_kernels as kernels

    rows, size = table.shape
    given = table.indptr.astype(np.int64)
    order, rank, query_ptr = kernels.sorted_by_query(query, size)
    ptr, token = kernels.seen_tokens(given, table.indices, order, query_ptr)
    number = np.diff(ptr)
    width = np.repeat(-(-number // _PAD) * _PAD, np.diff(query_ptr))
    dense = bool(table.nnz >= _DENSE_SHARE * width.sum())
    indptr = np.concatenate([[0], np.cumsum(width if dense else np.diff(given)[order])]).astype(np.int64)
    most = int(number.max(initial=0))
    kind: Any = np.uint8 if dense or most <= 1 << 8 else np.uint16 if most <= 1 << 16 else np.uint32

    # Where all K x K places fit into the cache, rows are read in their own order.
    together = size * size <= _TABLE
    place = np.zeros(size * size if together else size, np.uint32)
    if together:
        pair_query = np.repeat(np.arange(size), number)
        place[pair_query * size + token] = np.arange(len(token)) - ptr[pair_query]
        offset, every = query * size, np.arange(rows)

    def copied(local: NDArray[Any], counts: NDArray[Any]) -> bool:
        into = dense, indptr, local, counts
        if together:

            def copy(first: int, last: int) -> bool:
                part = slice(first, last)
                return kernels.copy_csr(
                    every[part], given, table.indices, table.data, place, offset[part], rank[part], *into
                )

            return _in_parts(copy, rows, rows)
        whole = True
        nowhere = np.zeros(int(np.diff(query_ptr).max()), np.int64)
        for q in np.flatnonzero(np.diff(query_ptr)):
            place[token[ptr[q] : ptr[q + 1]]] = np.arange(number[q])
            mine = order[query_ptr[q] : query_ptr[q + 1]]
            to = np.arange(query_ptr[q], query_ptr[q + 1])
            whole &= kernels.copy_csr(mine, given, table.indices, table.data, place, nowhere[: len(mine)], to, *into)
        return whole

    local: NDArray[Any] = np.empty(0 if dense else int(indptr[-1]), kind)
    counts: NDArray[Any] = (np.zeros if dense else np.empty)(int(indptr[-1]), np.uint8)
    if kind == np.uint32 or not copied(local, counts):
        # Wide tokens or counts: one set of wide types, so that few versions of a kernel have to be compiled.
        local = np.empty(0 if dense else int(indptr[-1]), np.uint32)
        counts = np.zeros(int(indptr[-1]))
        copied(local, counts)
    return _finish(order, query_ptr, ptr, token, dense, indptr, local.astype(np.uint8) if dense else local, counts)


def _in_parts(work: Callable[[int, int], bool], number: int, rows: int) -> bool:
    """Run work(first, last) over `number` things, one stretch for each thread; whether all returned True."""
    from ccmc._data.compiled import shared_pool, thread_count

    threads = thread_count() if rows >= _SAMPLE else 1
    edges = np.linspace(0, number, threads + 1).astype(np.int64).tolist()
    if threads == 1:
        return work(0, number)
    parts = [shared_pool(threads).submit(work, *edges[k : k + 2]) for k in range(threads)]
    wait(parts)
    return all(part.result() for part in parts)


def _finish(
    order: IntArray,
    query_ptr: IntArray,
    ptr: IntArray,
    token: IntArray,
    dense: bool,
    indptr: IntArray,
    local: NDArray[Any],
    counts: NDArray[Any],
) -> CompactRows:
    from ccmc._data.connect_kernels import join

    component = np.zeros(len(token), np.int64)
    components = np.zeros(len(ptr) - 1, np.int64)
    join(query_ptr, ptr, dense, indptr, local, counts, component, components)
    return CompactRows(Pairs(order, query_ptr, ptr, token, component, components), dense, indptr, local, counts)
