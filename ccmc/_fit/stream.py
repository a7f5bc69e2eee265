"""The fit of sequences by following them: what is known of their pairs, and the passes of all queries together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ccmc._data.pairs import Pairs
from ccmc._data.prefixes import PrefixContexts
from ccmc._data.types import BoolArray, FloatArray, IntArray

# Queries for which this many passes do not suffice are left to the solver that knows the Hessian.
_PASSES = 60
_FEW = 8


def stream_pairs(contexts: PrefixContexts) -> Pairs:
    """The pairs of the prefixes, from the first and last occurrences of each token in each sequence."""
    from ccmc._data.compact_kernels import sorted_by_query
    from ccmc._fit.stream_kernels import join_prefixes

    size = contexts.vocab_size
    first, last, seen = _occurrences(contexts)
    names = contexts.occurring
    number = np.zeros(size, np.int64)
    number[names] = seen.sum(axis=1)
    ptr = np.concatenate([[0], np.cumsum(number)]).astype(np.int64)
    token = np.nonzero(seen)[1].astype(np.int64)
    component, few = np.zeros(len(token), np.int64), np.zeros(len(names), np.int64)
    join_prefixes(first, last, _starts(seen), token, component, few)
    components = np.zeros(size, np.int64)
    components[names] = few
    order, _, query_ptr = sorted_by_query(contexts.query, size)
    return Pairs(order, query_ptr, ptr, names[token], component, components)


def surely_connected(contexts: PrefixContexts) -> bool:
    """Whether each component of each query is strongly connected, given that all its tokens were emitted."""
    from ccmc._fit.stream_kernels import strongly_connected

    first, _, seen = _occurrences(contexts)
    pairs, names = contexts.numbered_pairs, contexts.occurring
    query_ptr = np.concatenate([[0], pairs.query_ptr[names + 1]])
    return bool(
        strongly_connected(
            contexts.renamed, contexts.offsets, contexts.positions[pairs.order], query_ptr, first, _starts(seen),
            np.nonzero(seen)[1].astype(np.int64), pairs.component,
        )
    )  # fmt: skip


def _occurrences(contexts: PrefixContexts) -> tuple[IntArray, IntArray, BoolArray]:
    """first and last [sequences, V] and seen [V, V], with tokens numbered among those that occur."""
    from ccmc._fit.stream_kernels import first_and_last

    size, sequences = len(contexts.occurring), len(contexts.offsets) - 1
    first = np.full((sequences, size), np.iinfo(np.int64).max)
    last, seen = np.full((sequences, size), -1), np.zeros((size, size), np.bool_)
    first_and_last(contexts.renamed, contexts.offsets, contexts.kept, first, last, seen)
    return first, last, seen


def _starts(seen: BoolArray) -> IntArray:
    starts: IntArray = np.concatenate([[0], np.cumsum(seen.sum(axis=1))]).astype(np.int64)
    return starts


def solve_stream(
    contexts: PrefixContexts,
    prior: FloatArray,
    wins: FloatArray,
    ridge: float,
    tol: float,
    max_passes: int,
    delta: FloatArray,
    answer: FloatArray,
) -> IntArray:
    """Fit all queries, pass by pass, from `delta` [pairs] and into it; answer [K, 4] as in `solve_tasks`.

    Returns:
        Queries that were not finished, from whose `delta` to go on by other means.
    """
    from ccmc._data.compiled import thread_count
    from ccmc._fit import stream_kernels as kernels
    from ccmc._fit.linear import centre
    from ccmc._fit.solver import GRADIENT, POINT, REQUEST, workspace

    pairs, names = contexts.numbered_pairs, contexts.occurring
    ptr = np.concatenate([[0], pairs.ptr[names + 1]])
    size = np.diff(ptr)
    token = np.searchsorted(names, pairs.token)
    tokens = contexts.renamed
    start = np.concatenate([[0], np.cumsum(np.maximum(size, 8))])
    rows, depth = len(workspace(1)[0]), len(workspace(1)[1])
    vectors, history = np.zeros(rows * start[-1]), np.zeros(depth * start[-1])
    numbers = np.zeros((len(names), len(workspace(1)[2])))
    state = np.zeros((len(names), len(workspace(1)[3])), np.int64)
    state[:, REQUEST] = GRADIENT
    components, reached = pairs.components[names], np.zeros((len(names), 4))
    for q in np.flatnonzero(size):
        point = delta[ptr[q] : ptr[q + 1]].copy()
        centre(point, pairs.component[ptr[q] : ptr[q + 1]], components[q], np.empty(size[q]), np.empty(size[q]))
        vectors[rows * start[q] + POINT * size[q] :][: size[q]] = point

    def read(active: IntArray) -> bool:
        column = np.full(len(names), -1, np.int32)
        column[active] = np.arange(len(active))
        w, slope = np.empty((len(names), len(active))), np.empty((len(names), len(active)))
        total = np.empty(len(active))
        kernels.weights_of(active, ptr, token, start, vectors, rows, prior, w)
        if not kernels.stream_pass(
            tokens, contexts.offsets, contexts.kept, column, w, np.empty(len(tokens)), slope, total
        ):
            return False
        kernels.advance_all(
            active, ptr, token, start, vectors, rows, history, depth, numbers, state, prior, wins, ridge,
            pairs.component, components, tol, max_passes, w, slope, total, delta, reached,
        )  # fmt: skip
        return True

    active = np.flatnonzero(size)
    threads = thread_count()
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(min(_PASSES, max_passes)):
            # Queries do not mix, so threads may share them out.
            parts = np.array_split(active, min(threads, max(1, len(active) // _FEW)))
            if not all(list(pool.map(read, parts))):
                break
            active = active[state[active, REQUEST] == GRADIENT]
            if len(active) == 0:
                break
    answer[names] = reached
    unfinished: IntArray = names[np.flatnonzero((state[:, REQUEST] != 0) & (size > 0))]
    return unfinished
