"""Kernels that make compact rows: sorting by query, copying into small types, finding pairs and their components."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccmc._numba import kernel, summing_kernel
from ccmc._types import FloatArray, IntArray


@kernel
def sorted_by_query(query: IntArray, vocab_size: int) -> tuple[IntArray, IntArray]:
    """Rows [n] sorted by query, in their old order within a query, and where each query's rows begin [K + 1]."""
    ptr = np.zeros(vocab_size + 1, np.int64)
    for r in range(query.shape[0]):
        ptr[query[r] + 1] += 1
    for q in range(vocab_size):
        ptr[q + 1] += ptr[q]
    place = ptr[:vocab_size].copy()
    order = np.empty(query.shape[0], np.int64)
    for r in range(query.shape[0]):
        order[place[query[r]]] = r
        place[query[r]] += 1
    return order, ptr


@kernel
def ranks(order: IntArray) -> IntArray:
    """Place of each row in the order."""
    rank = np.empty(order.shape[0], np.int64)
    for o in range(order.shape[0]):
        rank[order[o]] = o
    return rank


@summing_kernel
def copy_dense(first: int, last: int, table: FloatArray, rank: IntArray, stride: int, counts: NDArray[Any]) -> bool:
    """Copy rows first ... last - 1 of a dense table to rows of `stride`, sorted; `counts` holds zeros.

    Returns whether every count survived the change of type: where single bytes did, counts are integers 0 ... 255.
    """
    size = table.shape[1]
    changed = 0
    for r in range(first, last):
        row = table[r]
        out = counts[rank[r] * stride : rank[r] * stride + size]
        # One loop for one thing: each of them runs on vectors, and the row stays in the cache between them.
        if counts.itemsize == 1:
            for k in range(size):
                out[k] = np.int32(row[k])
        else:
            for k in range(size):
                out[k] = row[k]
        lost = 0.0
        for k in range(size):
            lost += abs(float(out[k]) - row[k])
        changed += lost != 0.0
    return changed == 0


@kernel
def largest_counts(
    first: int, last: int, query_ptr: IntArray, stride: int, counts: NDArray[Any], largest: NDArray[Any]
) -> bool:
    """largest [K, stride] of each column of the rows of queries first ... last - 1; returns whether no row is empty."""
    empty = 0
    for q in range(first, last):
        best = largest[q]
        for r in range(query_ptr[q], query_ptr[q + 1]):
            row = counts[r * stride : (r + 1) * stride]
            for k in range(stride):
                best[k] = max(best[k], row[k])
            top = row[0]
            for k in range(stride):
                top = max(top, row[k])
            empty += not top > 0
    return empty == 0


@kernel
def look_up_dense(
    first: int,
    last: int,
    query: IntArray,
    wanted: IntArray,
    rank: IntArray,
    ptr: IntArray,
    place: IntArray,
    indptr: IntArray,
    counts: NDArray[Any],
    number: IntArray,
    met: FloatArray,
) -> bool:
    """For rows first ... last - 1: number of the pair (query, wanted token), and its count met, 0 where it is absent.

    place [K, K] numbers the tokens of each query, -1 for those that are not among them.
    """
    for r in range(first, last):
        c = place[query[r], wanted[r]]
        number[r] = ptr[query[r]] + c
        met[r] = counts[indptr[rank[r]] + c] if c >= 0 else 0.0
    return True


@kernel
def squeeze(
    query_ptr: IntArray, ptr: IntArray, token: IntArray, stride: int, pad: int, counts: NDArray[Any]
) -> tuple[IntArray, int]:
    """Keep the seen columns of dense rows only, in place; returns the rows' new bounds and the entries used."""
    indptr = np.empty(query_ptr[-1] + 1, np.int64)
    end = 0
    for q in range(query_ptr.shape[0] - 1):
        columns = token[ptr[q] : ptr[q + 1]]
        number = columns.shape[0]
        width = -(-number // pad) * pad
        for o in range(query_ptr[q], query_ptr[q + 1]):
            indptr[o] = end
            for c in range(number):
                counts[end + c] = counts[o * stride + columns[c]]
            for c in range(number, width):
                counts[end + c] = 0
            end += width
    indptr[-1] = end
    return indptr, end


@kernel
def seen_tokens(
    indptr: IntArray, indices: NDArray[Any], order: IntArray, query_ptr: IntArray
) -> tuple[IntArray, IntArray]:
    """Pairs of CSR rows: where each query's pairs begin [K + 1], and their tokens, ascending within a query."""
    size = query_ptr.shape[0] - 1
    ptr = np.zeros(size + 1, np.int64)
    seen = np.zeros(size, np.bool_)
    token = np.empty(min(1024, indices.shape[0]), np.int64)
    for q in range(size):
        begin = end = ptr[q]
        for o in range(query_ptr[q], query_ptr[q + 1]):
            if end - begin == size:
                break
            first, last = indptr[order[o]], indptr[order[o] + 1]
            if end + last - first > token.shape[0]:
                grown = np.empty(2 * token.shape[0] + last - first, np.int64)
                grown[:end] = token[:end]
                token = grown
            for k in range(first, last):
                if not seen[indices[k]]:
                    seen[indices[k]] = True
                    token[end] = indices[k]
                    end += 1
        token[begin:end].sort()
        for p in range(begin, end):
            seen[token[p]] = False
        ptr[q + 1] = end
    return ptr, token[: ptr[size]].copy()


@kernel
def copy_csr(
    rows: IntArray,
    given: IntArray,
    indices: NDArray[Any],
    data: FloatArray,
    place: NDArray[np.uint32],
    offset: IntArray,
    target: IntArray,
    dense: bool,
    indptr: IntArray,
    local: NDArray[Any],
    counts: NDArray[Any],
) -> bool:
    """Copy the CSR rows `rows` to the compact rows `target`; returns whether every count survived the change of type.

    place[offset[r] + token] is the number of a token among those of row r's query.
    """
    lost = 0.0
    for k in range(rows.shape[0]):
        first, size = given[rows[k]], given[rows[k] + 1] - given[rows[k]]
        base, shift = indptr[target[k]], np.uint64(offset[k])
        if dense:
            for e in range(first, first + size):
                at = base + place[shift + np.uint64(indices[e])]
                lost += _put(data[e : e + 1], counts[at : at + 1])
        else:
            lost += _put(data[first : first + size], counts[base : base + size])
            tokens, named = indices[first : first + size], local[base : base + size]
            for e in range(size):
                named[e] = place[shift + np.uint64(tokens[e])]
    return lost == 0.0


@summing_kernel
def _put(values: FloatArray, out: NDArray[Any]) -> float:
    """Copy into another type; returns by how much that changed the values."""
    lost = 0.0
    if out.itemsize == 1:
        for k in range(values.shape[0]):
            small = np.int32(values[k] if values[k] < 255.0 else 255.0)
            out[k] = small
            lost += abs(float(small) - values[k])
    else:
        for k in range(values.shape[0]):
            out[k] = values[k]
    return lost


@kernel
def members(dense: bool, first: int, last: int, local: NDArray[Any], counts: NDArray[Any], out: IntArray) -> int:
    """Write the numbers of the tokens that one row holds to `out`; returns how many."""
    size = 0
    for k in range(first, last):
        if dense:
            if counts[k] > 0:
                out[size] = k - first
                size += 1
        else:
            out[size] = local[k]
            size += 1
    return size


@kernel
def join(
    order: IntArray,
    query_ptr: IntArray,
    ptr: IntArray,
    token: IntArray,
    listed: bool,
    dense: bool,
    indptr: IntArray,
    local: NDArray[Any],
    counts: NDArray[Any],
    component: IntArray,
    components: IntArray,
) -> None:
    """Components of each query's tokens, joined where one row holds both; numbered by their smallest tokens.

    `listed`: the rows are those of CSR counts, unsorted, and `local` holds tokens; otherwise rows are compact.
    """
    largest = np.diff(ptr).max()
    parent, row = np.empty(largest, np.int64), np.empty(largest, np.int64)
    place = np.arange(ptr.shape[0] - 1)
    for q in range(ptr.shape[0] - 1):
        number = ptr[q + 1] - ptr[q]
        apart = number
        parent[:number] = np.arange(number)
        if listed:
            for c in range(number):
                place[token[ptr[q] + c]] = c
        for o in range(query_ptr[q], query_ptr[q + 1]):
            if apart == 1:
                break
            at = order[o] if listed else o
            size = members(dense, indptr[at], indptr[at + 1], local, counts, row)
            root = _root(parent, place[row[0]])
            for k in range(1, size):
                other = _root(parent, place[row[k]])
                if other == root:
                    continue
                apart -= 1
                # The smaller number stays the root, so numbering below follows the smallest token.
                if other < root:
                    parent[root] = other
                    root = other
                else:
                    parent[other] = root
        components[q] = apart
        found = 0
        for p in range(number):
            root = _root(parent, p)
            if root == p:
                component[ptr[q] + p] = found
                found += 1
            else:
                component[ptr[q] + p] = component[ptr[q] + root]


@kernel
def _root(parent: IntArray, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def strongly_connected(
    query_ptr: IntArray,
    ptr: IntArray,
    component: IntArray,
    components: IntArray,
    dense: bool,
    indptr: IntArray,
    local: NDArray[Any],
    counts: NDArray[Any],
    emitted: IntArray,
    sweeps: int,
) -> bool:
    """Whether each component is strongly connected under "a token of a row points to the token it emitted".

    emitted [n] numbers the token of each sorted row. From one token of each component, follow the arrows forwards in
    sweeps over the rows, and backwards through the rows that a reached token won. False also when `sweeps` sweeps
    were not enough: then nothing is known.
    """
    largest = np.diff(ptr).max()
    row, stack = np.empty(largest, np.int64), np.empty(largest, np.int64)
    forward, backward = np.empty(largest, np.bool_), np.empty(largest, np.bool_)
    for q in range(ptr.shape[0] - 1):
        number = ptr[q + 1] - ptr[q]
        first, last = query_ptr[q], query_ptr[q + 1]
        if number == components[q]:
            continue
        # Rows by the token they emitted.
        won_ptr = np.zeros(number + 1, np.int64)
        for o in range(first, last):
            won_ptr[emitted[o] + 1] += 1
        for c in range(number):
            won_ptr[c + 1] += won_ptr[c]
        place, won = won_ptr[:number].copy(), np.empty(last - first, np.int64)
        for o in range(first, last):
            won[place[emitted[o]]] = o
            place[emitted[o]] += 1
        forward[:number] = False
        backward[:number] = False
        waiting = 0
        started = 0
        for c in range(number):
            if component[ptr[q] + c] == started:
                started += 1
                forward[c] = backward[c] = True
                stack[waiting] = c
                waiting += 1
        reached = waiting
        while waiting > 0 and reached < number:
            waiting -= 1
            token = stack[waiting]
            for k in range(won_ptr[token], won_ptr[token + 1]):
                if reached == number:
                    break
                size = members(dense, indptr[won[k]], indptr[won[k] + 1], local, counts, row)
                for e in range(size):
                    if not backward[row[e]]:
                        backward[row[e]] = True
                        stack[waiting] = row[e]
                        waiting += 1
                        reached += 1
        if reached < number:
            return False
        reached = components[q]
        for _ in range(sweeps):
            before = reached
            for o in range(first, last):
                if reached == number:
                    break
                if forward[emitted[o]]:
                    continue
                size = members(dense, indptr[o], indptr[o + 1], local, counts, row)
                for e in range(size):
                    if forward[row[e]]:
                        forward[emitted[o]] = True
                        reached += 1
                        break
            if reached in (number, before):
                break
        if reached < number:
            return False
    return True
