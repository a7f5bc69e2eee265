"""Kernels that tell which tokens of a query rows join: by standing in one row, or by arrows to the emitted token."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel
from ccmc._data.types import IntArray

# Rows per token of a query that are tried first, to see whether they connect its tokens.
_FEW = 12


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
    query_ptr: IntArray,
    ptr: IntArray,
    dense: bool,
    indptr: IntArray,
    local: NDArray[Any],
    counts: NDArray[Any],
    component: IntArray,
    components: IntArray,
) -> None:
    """Components of each query's tokens, joined where one compact row holds both; numbered by their smallest tokens."""
    largest = np.diff(ptr).max()
    parent, row = np.empty(largest, np.int64), np.empty(largest, np.int64)
    for q in range(ptr.shape[0] - 1):
        number = ptr[q + 1] - ptr[q]
        apart = number
        parent[:number] = np.arange(number)
        for o in range(query_ptr[q], query_ptr[q + 1]):
            if apart == 1:
                break
            size = members(dense, indptr[o], indptr[o + 1], local, counts, row)
            root = _root(parent, row[0])
            for k in range(1, size):
                other = _root(parent, row[k])
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
    emitted: NDArray[Any],
    sweeps: int,
) -> bool:
    """Whether each component is strongly connected under "a token of a row points to the token it emitted".

    emitted [n] numbers the token of each sorted row. A few rows of a query tell as a rule; all of them are read where
    those do not. False also when `sweeps` sweeps were not enough: then nothing is known.
    """
    rows, largest = 0, np.diff(ptr).max()
    for q in range(ptr.shape[0] - 1):
        rows = max(rows, query_ptr[q + 1] - query_ptr[q])
    row, stack, won = np.empty(largest, np.int64), np.empty(largest, np.int64), np.empty(rows, np.int64)
    forward, backward = np.empty(largest, np.bool_), np.empty(largest, np.bool_)
    for q in range(ptr.shape[0] - 1):
        number = ptr[q + 1] - ptr[q]
        first, last = query_ptr[q], query_ptr[q + 1]
        if number == components[q]:
            continue
        joined = False
        for tried in (min(_FEW * number, last - first), last - first):
            joined = joined or _joined(
                component[ptr[q] : ptr[q + 1]], components[q], dense, indptr[first:], local, counts,
                emitted[first : first + tried], sweeps, row, stack, won, forward, backward,
            )  # fmt: skip
            if joined:
                break
        if not joined:
            return False
    return True


@kernel
def _joined(
    component: IntArray,
    components: int,
    dense: bool,
    indptr: IntArray,
    local: NDArray[Any],
    counts: NDArray[Any],
    emitted: NDArray[Any],
    sweeps: int,
    row: IntArray,
    stack: IntArray,
    won: IntArray,
    forward: NDArray[np.bool_],
    backward: NDArray[np.bool_],
) -> bool:
    """The answer for the rows of one query, each with the number of the token it emitted.

    From one token of each component, follow the arrows forwards in sweeps over the rows, and backwards through the
    rows that a reached token won.
    """
    number, rows = component.shape[0], emitted.shape[0]
    # Rows by the token they emitted.
    won_ptr = np.zeros(number + 1, np.int64)
    for o in range(rows):
        won_ptr[emitted[o] + 1] += 1
    for c in range(number):
        won_ptr[c + 1] += won_ptr[c]
    place = won_ptr[:number].copy()
    for o in range(rows):
        won[place[emitted[o]]] = o
        place[emitted[o]] += 1
    forward[:number] = False
    backward[:number] = False
    waiting = 0
    started = 0
    for c in range(number):
        if component[c] == started:
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
    reached = components
    for _ in range(sweeps):
        before = reached
        for o in range(rows):
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
    return bool(reached == number)
