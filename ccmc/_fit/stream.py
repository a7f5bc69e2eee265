"""The fit of sequences by following them: the passes of all queries together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ccmc._data.pairs import Pairs
from ccmc._data.prefixes import Prefixes
from ccmc._data.types import FloatArray, IntArray

# Queries for which this many passes do not suffice are left to the solver that knows the Hessian.
_PASSES = 60
_FEW = 8


def solve_stream(
    prefixes: Prefixes,
    pairs: Pairs,
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
    from ccmc._fit.workspace import GRADIENT, POINT, REQUEST, workspace

    names = prefixes.occurring
    ptr = np.concatenate([[0], pairs.ptr[names + 1]])
    size = np.diff(ptr)
    token = np.searchsorted(names, pairs.token)
    tokens = prefixes.renamed
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
            tokens, prefixes.offsets, prefixes.kept, column, w, np.empty(len(tokens)), slope, total
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
