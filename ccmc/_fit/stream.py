"""The fit of sequences by following them: the passes of all queries together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ccmc._data.pairs import Pairs
from ccmc._data.prefixes import Prefixes
from ccmc._data.types import FloatArray, IntArray
from ccmc._fit.problem import Problem

# Queries for which this many passes do not suffice are left to the solver that knows the Hessian.
_PASSES = 60
_FEW = 8


def solve_stream(
    prefixes: Prefixes,
    pairs: Pairs,
    problem: Problem,
    delta: FloatArray,
    answer: FloatArray,
) -> IntArray:
    """Fit all queries of one head, pass by pass, from `delta` [pairs] and into it; answer [K, 4] as in `solve_tasks`.

    Returns:
        Queries that were not finished, from whose `delta` to go on by other means.
    """
    from ccmc._data.compiled import thread_count
    from ccmc._fit import stream_kernels as kernels
    from ccmc._fit.workspace import GRADIENT, REQUEST, workspace

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
    _set_points(vectors, delta, pairs.component, components, ptr, rows * start)
    prior, wins, ridge = problem.prior[0], problem.wins[0], problem.ridge[0]

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
            pairs.component, components, problem.tol, problem.max_passes, w, slope, total, delta, reached,
        )  # fmt: skip
        return True

    active = np.flatnonzero(size)
    threads = thread_count()
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(min(_PASSES, problem.max_passes)):
            # Queries do not mix, so threads may share them out.
            parts = np.array_split(active, min(threads, max(1, len(active) // _FEW)))
            if not all(list(pool.map(read, parts))):
                break
            active = active[state[active, REQUEST] == GRADIENT]
            if len(active) == 0:
                break
    answer[names] = reached
    return names[np.flatnonzero((state[:, REQUEST] != 0) & (size > 0))]


def _set_points(
    vectors: FloatArray, delta: FloatArray, component: IntArray, components: IntArray, ptr: IntArray, begin: IntArray
) -> None:
    """Write where each query starts, `delta` with its components centred, to its vectors, which begin at `begin`."""
    from ccmc._fit.linear import centre
    from ccmc._fit.workspace import POINT

    for q in np.flatnonzero(np.diff(ptr)):
        part = slice(ptr[q], ptr[q + 1])
        size = ptr[q + 1] - ptr[q]
        point = delta[part].copy()
        centre(point, component[part], components[q], np.empty(size), np.empty(size))
        vectors[begin[q] + POINT * size :][:size] = point
