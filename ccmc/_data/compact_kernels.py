"""Kernels that make compact rows: sorting by query, copying into small types, finding pairs and emitted tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.types import FloatArray, IntArray

U64 = np.uint64
_SHIFT = 4503599627370496.0
_SHIFT_BITS = U64(0x4330000000000000)
# Numbers that are read at a time.
_AT_ONCE = 1024


@kernel
def sorted_by_query(query: IntArray, vocab_size: int) -> tuple[IntArray, IntArray, IntArray]:
    """Rows [n] sorted by query, in their old order within a query; each place [n]; where queries begin [K + 1]."""
    ptr = np.zeros(vocab_size + 1, np.int64)
    for r in range(query.shape[0]):
        ptr[query[r] + 1] += 1
    for q in range(vocab_size):
        ptr[q + 1] += ptr[q]
    free = ptr[:vocab_size].copy()
    order, rank = np.empty(query.shape[0], np.int64), np.empty(query.shape[0], np.int64)
    for r in range(query.shape[0]):
        at = free[query[r]]
        order[at] = r
        rank[r] = at
        free[query[r]] = at + 1
    return order, rank, ptr


@summing_kernel
def _one_of_row(row: FloatArray) -> int:
    """Where a row holds 1, if it holds 0 elsewhere; else -1."""
    total, place, wrong = 0.0, 0.0, 0
    for k in range(row.shape[0]):
        total += row[k]
        place += row[k] * k
        wrong += (row[k] != 0.0) & (row[k] != 1.0)
    return int(place) if wrong == 0 and total == 1.0 else -1


@kernel
def ones_of_rows(first: int, last: int, table: FloatArray, place: IntArray) -> bool:
    """Write where each of the rows first ... last - 1 holds its 1; ends, with False, at one that is no unit vector."""
    for r in range(first, last):
        place[r] = _one_of_row(table[r])
        if place[r] < 0:
            return False
    return True


@kernel
def copy_bytes(
    first: int, last: int, table: FloatArray, rank: IntArray, stride: int, counts: NDArray[np.uint8]
) -> bool:
    """Copy rows first ... last - 1 of a dense table to rows of `stride` bytes, sorted; `counts` holds zeros.

    Returns whether every count is an integer 0 ... 255. A number below 2^52 is written into the lowest bits of its sum
    with 2^52, so one addition tells whether it is one, and which. Several rows are read at a time: short loops are
    slow.
    """
    size = table.shape[1]
    at_once = max(1, _AT_ONCE // size)
    numbers = table.reshape(-1)
    shifted, taken = np.empty(at_once * size), np.empty(at_once * size, np.uint8)
    bits = shifted.view(np.uint64)
    wrong = U64(0)
    for begin in range(first, last, at_once):
        end = min(begin + at_once, last)
        length = (end - begin) * size
        part = numbers[begin * size : begin * size + length]
        changed = np.int64(0)
        for k in range(length):
            shifted[k] = part[k] + _SHIFT
        for k in range(length):
            changed |= np.int64(shifted[k] - _SHIFT != part[k])
        for k in range(length):
            wrong |= (bits[k] ^ _SHIFT_BITS) >> U64(8)
        if changed or wrong:
            return False
        for k in range(length):
            taken[k] = bits[k]
        for r in range(begin, end):
            of, to = (r - begin) * size, rank[r] * stride
            for k in range(size):
                counts[U64(to + k)] = taken[U64(of + k)]
    return True


@kernel
def copy_floats(first: int, last: int, table: FloatArray, rank: IntArray, stride: int, counts: FloatArray) -> bool:
    """Copy rows first ... last - 1 of a dense table to rows of `stride`, sorted; `counts` holds zeros."""
    size = table.shape[1]
    for r in range(first, last):
        out = counts[rank[r] * stride : rank[r] * stride + size]
        for k in range(size):
            # Adding 0 makes of -0 what all other zeros are.
            out[k] = table[r, k] + 0.0
    return True


@kernel
def seen_words(first: int, last: int, query_ptr: IntArray, words: NDArray[np.uint64], seen: NDArray[np.uint64]) -> bool:
    """seen [K, words per row]: bits set in any row of queries first ... last - 1; returns whether no row is empty.

    words holds the bits of the rows, eight bytes in each word.
    """
    width = seen.shape[1]
    empty = 0
    for q in range(first, last):
        mine = seen[q]
        for r in range(query_ptr[q], query_ptr[q + 1]):
            row = words[r * width : (r + 1) * width]
            every = U64(0)
            for k in range(width):
                every |= row[k]
                mine[k] |= row[k]
            empty += every == 0
    return empty == 0


@kernel
def read_emitted(
    first: int,
    last: int,
    order: IntArray,
    query_ptr: IntArray,
    wanted: IntArray,
    weight: FloatArray,
    ptr: IntArray,
    place: IntArray,
    indptr: IntArray,
    counts: NDArray[Any],
    logarithms: FloatArray,
    wins: FloatArray,
    mass: FloatArray,
    numbers: NDArray[np.int32],
) -> bool:
    """Of the rows of queries first ... last - 1: wins [pairs], log-count mass [K] and numbers [n] of wanted tokens [n].

    place [K, K] numbers the tokens of each query, -1 for those that are not among them. weight is [n], or empty for
    weights of 1. Returns whether each row holds its token.
    """
    for q in range(first, last):
        mine, won = place[q], wins[ptr[q] : ptr[q + 1]]
        total = 0.0
        for o in range(query_ptr[q], query_ptr[q + 1]):
            r = order[o]
            c = mine[wanted[r]]
            if c < 0:
                return False
            count = counts[indptr[o] + c]
            if count == 0:
                return False
            w = weight[r] if weight.shape[0] > 0 else 1.0
            won[c] += w
            total += w * (logarithms[int(count)] if counts.itemsize == 1 else np.log(count))
            numbers[o] = c
        mass[q] = total
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
