"""Kernels that follow sequences of tokens, whose contexts are their prefixes.

With w = exp(theta) the normaliser of query q after t tokens is S_t(q) = sum_{s <= t} w[q, x_s], so one more token
adds one column of w to all of them. Expected wins need slope[q, k] = sum over prefixes t that end in q of
m_k(t) / S_t(q); as m_k(t) counts the s <= t with x_s = k, this is the sum over s with x_s = k of
R_s(q) = sum_{t >= s, x_t = q} 1 / S_t(q), which one walk backwards collects. Two vectors of one number per query are
touched per token and pass, and nothing is ever subtracted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.types import BoolArray, FloatArray, IntArray
from ccmc._fit.solver import advance
from ccmc._fit.workspace import BEST, DONE, LIKELIHOOD, MEASURE, OBJECTIVE, PASSES, POINT, REQUEST

_TINY = 1e-100


@summing_kernel
def stream_pass(
    tokens: NDArray[np.int32],
    offsets: IntArray,
    kept: BoolArray,
    column: NDArray[np.int32],
    w: FloatArray,
    inverse: FloatArray,
    slope: FloatArray,
    total: FloatArray,
) -> bool:
    """One pass for the queries q with column[q] >= 0; False if a normaliser underflows, and then nothing is valid.

    w [V, columns] = exp(theta - max theta) by token and column of the query, 0 where the pair does not occur;
    slope [V, columns] and total [columns] = sum log S are written; inverse [tokens] is scratch.
    """
    width = w.shape[1]
    s, product = np.empty(width), np.ones(width)
    slope[:] = 0.0
    total[:] = 0.0
    for part in range(offsets.shape[0] - 1):
        s[:] = 0.0
        for p in range(offsets[part], offsets[part + 1]):
            more = w[tokens[p]]
            for a in range(width):
                s[a] += more[a]
            a = column[tokens[p]]
            if a >= 0 and kept[p]:
                if s[a] <= _TINY:
                    return False
                inverse[p] = 1.0 / s[a]
                product[a] *= s[a]
                if product[a] > 1e150 or product[a] < 1e-150:
                    total[a] += np.log(product[a])
                    product[a] = 1.0
        s[:] = 0.0
        for p in range(offsets[part + 1] - 1, offsets[part] - 1, -1):
            a = column[tokens[p]]
            if a >= 0 and kept[p]:
                s[a] += inverse[p]
            into = slope[tokens[p]]
            for a in range(width):
                into[a] += s[a]
    for a in range(width):
        total[a] += np.log(product[a])
    return True


@kernel
def weights_of(
    active: IntArray,
    ptr: IntArray,
    token: IntArray,
    start: IntArray,
    vectors: FloatArray,
    rows: int,
    prior: FloatArray,
    w: FloatArray,
) -> None:
    """w [V, active] at the points that the solvers of the active queries ask for."""
    w[:] = 0.0
    for a in range(active.shape[0]):
        q = active[a]
        size = ptr[q + 1] - ptr[q]
        point = vectors[rows * start[q] :][: rows * size].reshape((rows, size))[POINT]
        z = prior[ptr[q] : ptr[q + 1]] + point
        top = z.max()
        for c in range(size):
            w[token[ptr[q] + c], a] = np.exp(z[c] - top)


@kernel
def advance_all(
    active: IntArray,
    ptr: IntArray,
    token: IntArray,
    start: IntArray,
    vectors: FloatArray,
    rows: int,
    history: FloatArray,
    depth: int,
    numbers: FloatArray,
    state: IntArray,
    prior: FloatArray,
    wins: FloatArray,
    ridge: float,
    component: IntArray,
    components: IntArray,
    tol: float,
    max_passes: int,
    w: FloatArray,
    slope: FloatArray,
    total: FloatArray,
    delta: FloatArray,
    answer: FloatArray,
) -> None:
    """Give each active query's solver its answer, and write its best point so far to `delta`."""
    nothing = np.empty((0, 0))
    for a in range(active.shape[0]):
        q = active[a]
        part = slice(ptr[q], ptr[q + 1])
        size = ptr[q + 1] - ptr[q]
        mine = vectors[rows * start[q] :][: rows * size].reshape((rows, size))
        past = history[depth * start[q] :][: depth * max(size, 8)].reshape((depth, max(size, 8)))
        slopes, expected = np.empty(size), np.empty(size)
        for c in range(size):
            slopes[c] = slope[token[ptr[q] + c], a]
            expected[c] = slopes[c] * w[token[ptr[q] + c], a]
        request = advance(
            mine, past, numbers[q], state[q], prior[part], wins[part], ridge, component[part], components[q], tol,
            max_passes, total[a], slopes, expected, nothing,
        )  # fmt: skip
        delta[part] = mine[BEST]
        if request == DONE:
            answer[q, 0] = numbers[q, OBJECTIVE]
            answer[q, 1] = numbers[q, LIKELIHOOD]
            answer[q, 2] = numbers[q, MEASURE]
        answer[q, 3] = state[q, PASSES]
        state[q, REQUEST] = request
