"""Drivers of the solver: many queries at a time in compiled code, or one large query on several threads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccmc._data.columns import to_columns
from ccmc._data.compact import CompactRows
from ccmc._data.compiled import kernel, run_tasks
from ccmc._data.types import FloatArray, IntArray
from ccmc._fit.column_pass import column_pass
from ccmc._fit.linear import centre
from ccmc._fit.passes import exponentials, gradient_pass, product_pass, squares_pass
from ccmc._fit.problem import Problem
from ccmc._fit.solver import advance, may_be_coarse
from ccmc._fit.workspace import (
    BEST,
    COARSE,
    DIRECTION,
    DONE,
    GRADIENT,
    HESSIAN,
    LIKELIHOOD,
    MEASURE,
    OBJECTIVE,
    PASSES,
    POINT,
    PRODUCT,
    workspace,
)

# Entries from which a query is read in portions by several threads, whatever their number.
LARGE = 1 << 22
_PORTIONS = 32


@kernel
def solve_query(
    rows: int,
    dense: bool,
    indptr: IntArray,
    local: NDArray[Any],
    counts: NDArray[Any],
    weight: FloatArray,
    component: IntArray,
    components: int,
    prior: FloatArray,
    wins: FloatArray,
    ridge: float,
    tol: float,
    max_passes: int,
    delta: FloatArray,
    answer: FloatArray,
) -> None:
    """Minimise F over `rows` rows from `delta`, in place.

    answer [4] = objective, log-likelihood, measure, passes.
    """
    size = delta.shape[0]
    width = indptr[1] - indptr[0] if dense else size
    vectors, history, numbers, state = workspace(size)
    w, slope, extra, expected = np.empty(width), np.empty(width), np.empty(size), np.empty(size)
    y, inverse = np.zeros(width), np.zeros(rows)
    squares = np.empty((0, 0))
    columns = to_columns(rows, size, width, counts) if dense else counts[:0]
    vectors[POINT] = delta
    centre(vectors[POINT], component, components, expected, extra)
    request = GRADIENT
    total = 0.0
    z = prior + vectors[POINT]
    while request != DONE:
        slope[:] = 0.0
        extra[:] = 0.0
        if request == PRODUCT:
            v = vectors[DIRECTION]
            for c in range(size):
                y[c] = w[c] * v[c]
            product_pass(0, rows, dense, indptr, local, counts, weight, z, y, v, inverse, slope, extra)
        else:
            z[:] = prior + vectors[POINT]
            exponentials(z, w)
            if dense:
                coarse = may_be_coarse(numbers, state, max_passes)
                state[COARSE] = coarse
                total = column_pass(coarse, rows, columns, width, counts, weight, z, w, inverse, slope, extra)
            else:
                total = gradient_pass(0, rows, dense, indptr, local, counts, weight, z, w, inverse, slope, extra)
            if request == HESSIAN:
                squares = np.zeros((size, size))
                squares_pass(0, rows, dense, indptr, local, counts, weight, z, w, inverse, squares)
        expected[:] = w[:size] * slope[:size] + extra
        request = advance(
            vectors, history, numbers, state, prior, wins, ridge, component, components, tol, max_passes,
            total, slope, expected, squares,
        )  # fmt: skip
    delta[:] = vectors[BEST]
    answer[0], answer[1], answer[2], answer[3] = (
        numbers[OBJECTIVE],
        numbers[LIKELIHOOD],
        numbers[MEASURE],
        state[PASSES],
    )


@kernel
def solve_tasks(
    tasks: IntArray,
    query_ptr: IntArray,
    pair_ptr: IntArray,
    component: IntArray,
    components: IntArray,
    dense: bool,
    indptr: IntArray,
    local: NDArray[Any],
    counts: NDArray[Any],
    weight: FloatArray,
    prior: FloatArray,
    wins: FloatArray,
    ridge: FloatArray,
    tol: float,
    max_passes: int,
    delta: FloatArray,
    answer: FloatArray,
) -> None:
    """Solve the problems `tasks`; task t is query t mod K of head t div K.

    Shapes: weight [1 or H, n], in the order of the compact rows; prior, wins, delta [H, pairs]; ridge [H];
    answer [H, K, 4]. `delta` holds the start and receives the solution.
    """
    vocab_size = query_ptr.shape[0] - 1
    for t in range(tasks.shape[0]):
        head, query = tasks[t] // vocab_size, tasks[t] % vocab_size
        first, last = pair_ptr[query], pair_ptr[query + 1]
        begin, end = query_ptr[query], query_ptr[query + 1]
        low = indptr[begin]
        solve_query(
            end - begin, dense, indptr[begin : end + 1] - low, local[low:] if not dense else local, counts[low:],
            weight[head % weight.shape[0], begin:end], component[first:last], components[query],
            prior[head, first:last], wins[head, first:last], ridge[head], tol, max_passes,
            delta[head, first:last], answer[head, query],
        )  # fmt: skip


@kernel
def all_gradients(
    query_ptr: IntArray,
    pair_ptr: IntArray,
    dense: bool,
    indptr: IntArray,
    local: NDArray[Any],
    counts: NDArray[Any],
    weight: FloatArray,
    z: FloatArray,
    wins: FloatArray,
    inverse: FloatArray,
    expected: FloatArray,
) -> float:
    """Log-likelihood (without log counts) of all queries at logits z [pairs]; expected [pairs] receives their wins."""
    likelihood = 0.0
    for q in range(query_ptr.shape[0] - 1):
        first, last = query_ptr[q], query_ptr[q + 1]
        if first == last:
            continue
        part = slice(pair_ptr[q], pair_ptr[q + 1])
        size = pair_ptr[q + 1] - pair_ptr[q]
        width = indptr[first + 1] - indptr[first] if dense else size
        w, slope, extra = np.empty(width), np.zeros(width), np.zeros(size)
        exponentials(z[part], w)
        total = gradient_pass(first, last, dense, indptr, local, counts, weight, z[part], w, inverse, slope, extra)
        expected[part] = w[:size] * slope[:size] + extra
        likelihood += wins[part] @ (z[part] - z[part].max()) - total
    return likelihood


@kernel
def all_products(
    query_ptr: IntArray,
    pair_ptr: IntArray,
    dense: bool,
    indptr: IntArray,
    local: NDArray[Any],
    counts: NDArray[Any],
    weight: FloatArray,
    z: FloatArray,
    v: FloatArray,
    inverse: FloatArray,
    image: FloatArray,
) -> None:
    """image [pairs] = Hessian of the negative log-likelihood x v, at the z of the last `all_gradients`."""
    for q in range(query_ptr.shape[0] - 1):
        first, last = query_ptr[q], query_ptr[q + 1]
        if first == last:
            continue
        part = slice(pair_ptr[q], pair_ptr[q + 1])
        size = pair_ptr[q + 1] - pair_ptr[q]
        width = indptr[first + 1] - indptr[first] if dense else size
        w, slope, extra, y = np.empty(width), np.zeros(width), np.zeros(size), np.zeros(width)
        exponentials(z[part], w)
        # Two products: with 1 for the diagonal, which is the expected wins, and with v.
        y[:size] = w[:size]
        product_pass(
            first, last, dense, indptr, local, counts, weight, z[part], y, np.ones(size), inverse, slope, extra
        )
        image[part] = (w[:size] * slope[:size] + extra) * v[part]
        y[:size] = w[:size] * v[part]
        slope[:] = 0.0
        extra[:] = 0.0
        product_pass(first, last, dense, indptr, local, counts, weight, z[part], y, v[part], inverse, slope, extra)
        image[part] -= w[:size] * slope[:size] + extra


def solve_large(
    rows: CompactRows, head: int, query: int, problem: Problem, delta: FloatArray, answer: FloatArray
) -> None:
    """As `solve_query` for one query of one head, each pass in a fixed number of portions that threads share.

    Shapes: delta [pairs of the query], answer [4]; problem.weight is in the order of the compact rows.
    """
    pairs = rows.pairs
    part = slice(pairs.ptr[query], pairs.ptr[query + 1])
    component, components = pairs.component[part], pairs.components[query]
    prior, wins, ridge = problem.prior[head, part], problem.wins[head, part], problem.ridge[head]
    weight = problem.weight[head % len(problem.weight)]
    dense, indptr, local, counts = rows.arrays()
    first, last = pairs.query_ptr[query], pairs.query_ptr[query + 1]
    size = len(delta)
    width = int(indptr[first + 1] - indptr[first]) if dense else size
    vectors, history, numbers, state = workspace(size)
    w, y, inverse = np.empty(width), np.zeros(width), np.zeros(last)
    vectors[POINT] = delta
    centre(vectors[POINT], component, components, np.empty(size), np.empty(size))
    edges = np.linspace(first, last, _PORTIONS + 1).astype(np.int64)
    slopes, extras, totals = np.empty((_PORTIONS, width)), np.empty((_PORTIONS, size)), np.zeros(_PORTIONS)
    squares = np.empty((0, 0))
    request = GRADIENT
    z = prior + vectors[POINT]

    def read(portions: IntArray) -> None:
        for k in portions:
            slopes[k], extras[k] = 0.0, 0.0
            bounds = edges[k], edges[k + 1]
            if request == PRODUCT:
                product_pass(
                    *bounds, dense, indptr, local, counts, weight, z, y, vectors[DIRECTION], inverse,
                    slopes[k], extras[k],
                )  # fmt: skip
            else:
                totals[k] = gradient_pass(
                    *bounds, dense, indptr, local, counts, weight, z, w, inverse, slopes[k], extras[k]
                )

    while request != DONE:
        if request == PRODUCT:
            y[:size] = w[:size] * vectors[DIRECTION]
        else:
            z = prior + vectors[POINT]
            exponentials(z, w)
        run_tasks(read, np.ones(_PORTIONS))
        slope, extra = slopes.sum(axis=0), extras.sum(axis=0)
        if request == HESSIAN:
            squares = np.zeros((size, size))
            squares_pass(first, last, dense, indptr, local, counts, weight, z, w, inverse, squares)
        request = advance(
            vectors, history, numbers, state, prior, wins, ridge, component, components, problem.tol,
            problem.max_passes, float(totals.sum()), slope, w[:size] * slope[:size] + extra, squares,
        )  # fmt: skip
    delta[:] = vectors[BEST]
    answer[:] = numbers[OBJECTIVE], numbers[LIKELIHOOD], numbers[MEASURE], state[PASSES]
