"""Kernels that read the rows of one query once: the gradient, the Hessian, and the Hessian times a vector.

For the tokens c seen with one query, with logits z and rows r of counts m and weights w_r,

    total = sum_r w_r log S_r,    S_r = sum_c m_rc exp(z_c - max z),    slope_c = sum_r w_r m_rc / S_r,

so that the expected wins are e_c = exp(z_c - max z) slope_c. Logits are per token, not per entry: a pass takes one
exponential per token, and one multiplication and addition, twice, per entry. Rows are compact (see `_data/compact.py`).

A row whose tokens all lie hundreds of nats below the query's best would underflow; it is taken relative to its own
best token, and its part of the expected wins goes to `extra`. Kernels add to what is there, so that the rows of a
large query can be read in portions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.types import FloatArray

# Below this S_r nears underflow. Products may be reordered, so its inverse must still be squarable.
TINY = 1e-100


@kernel
def exponentials(z: FloatArray, w: FloatArray) -> None:
    """w_c = exp(z_c - max z), with zeros up to the length of w."""
    top = z.max()
    for c in range(z.shape[0]):
        w[c] = np.exp(z[c] - top)
    for c in range(z.shape[0], w.shape[0]):
        w[c] = 0.0


@summing_kernel
def gradient_pass(
    first: int,
    last: int,
    dense: bool,
    indptr: NDArray[np.int64],
    local: NDArray[Any],
    counts: NDArray[Any],
    weight: FloatArray,
    z: FloatArray,
    w: FloatArray,
    inverse: FloatArray,
    slope: FloatArray,
    extra: FloatArray,
) -> float:
    """`total` over rows first ... last - 1; adds to slope and extra.

    inverse[r] = 1 / S_r, or 0 where that underflows.
    """
    total = 0.0
    product = 1.0
    unit = weight[first] if last > first else 1.0
    width = w.shape[0]
    for r in range(first, last):
        start, end = indptr[r], indptr[r + 1]
        s = 0.0
        if dense:
            row = counts[start : start + width]
            for k in range(width):
                s += row[k] * w[k]
        else:
            for k in range(start, end):
                s += counts[k] * w[local[k]]
        if s <= TINY:
            inverse[r] = 0.0
            total += weight[r] * low_row(dense, start, end, local, counts, weight[r], z, extra)
            continue
        inverse[r] = 1.0 / s
        share = weight[r] / s
        if weight[r] == unit:
            # Logarithms are dear: one for many rows of the same weight.
            if s > 1e100:
                total += unit * np.log(s)
            else:
                product *= s
                if product > 1e150 or product < 1e-150:
                    total += unit * np.log(product)
                    product = 1.0
        else:
            total += weight[r] * np.log(s)
        if dense:
            row = counts[start : start + width]
            for k in range(width):
                slope[k] += share * row[k]
        else:
            for k in range(start, end):
                slope[local[k]] += share * counts[k]
    return float(total + unit * np.log(product))


@kernel
def low_row(
    dense: bool,
    start: int,
    end: int,
    local: NDArray[Any],
    counts: NDArray[Any],
    weight: float,
    z: FloatArray,
    extra: FloatArray,
) -> float:
    """log S_r of a row that underflows, its expected wins into `extra`."""
    best, s = _low_sum(dense, start, end, local, counts, z, z, False)
    for k in range(start, end):
        if counts[k] > 0:
            c = k - start if dense else local[k]
            extra[c] += weight * counts[k] * np.exp(z[c] - best) / s
    return float(np.log(s) + (best - z.max()))


@kernel
def _low_sum(
    dense: bool,
    start: int,
    end: int,
    local: NDArray[Any],
    counts: NDArray[Any],
    z: FloatArray,
    v: FloatArray,
    with_v: bool,
) -> tuple[float, float]:
    """Best logit of a row, and the sum of its counts x exp(z - best), each times v where `with_v`."""
    best = -np.inf
    for k in range(start, end):
        if counts[k] > 0:
            best = max(best, z[k - start if dense else local[k]])
    s = 0.0
    for k in range(start, end):
        if counts[k] > 0:
            c = k - start if dense else local[k]
            s += counts[k] * np.exp(z[c] - best) * (v[c] if with_v else 1.0)
    return best, s


@summing_kernel
def product_pass(
    first: int,
    last: int,
    dense: bool,
    indptr: NDArray[np.int64],
    local: NDArray[Any],
    counts: NDArray[Any],
    weight: FloatArray,
    z: FloatArray,
    y: FloatArray,
    v: FloatArray,
    inverse: FloatArray,
    slope: FloatArray,
    extra: FloatArray,
) -> None:
    """sum_r w_r p_r (p_r . v) = w * slope + extra, where y = w * v, at the point of the last gradient pass."""
    width = y.shape[0]
    for r in range(first, last):
        start, end = indptr[r], indptr[r + 1]
        if inverse[r] == 0.0:
            _low_product(dense, start, end, local, counts, weight[r], z, v, extra)
            continue
        s = 0.0
        if dense:
            row = counts[start : start + width]
            for k in range(width):
                s += row[k] * y[k]
            share = weight[r] * s * inverse[r] * inverse[r]
            for k in range(width):
                slope[k] += share * row[k]
        else:
            for k in range(start, end):
                s += counts[k] * y[local[k]]
            share = weight[r] * s * inverse[r] * inverse[r]
            for k in range(start, end):
                slope[local[k]] += share * counts[k]


@kernel
def _low_product(
    dense: bool,
    start: int,
    end: int,
    local: NDArray[Any],
    counts: NDArray[Any],
    weight: float,
    z: FloatArray,
    v: FloatArray,
    extra: FloatArray,
) -> None:
    best, s = _low_sum(dense, start, end, local, counts, z, v, False)
    _, t = _low_sum(dense, start, end, local, counts, z, v, True)
    for k in range(start, end):
        if counts[k] > 0:
            c = k - start if dense else local[k]
            extra[c] += weight * t / s * counts[k] * np.exp(z[c] - best) / s


@summing_kernel
def squares_pass(
    first: int,
    last: int,
    dense: bool,
    indptr: NDArray[np.int64],
    local: NDArray[Any],
    counts: NDArray[Any],
    weight: FloatArray,
    z: FloatArray,
    w: FloatArray,
    inverse: FloatArray,
    squares: FloatArray,
) -> None:
    """squares[a, b] += sum_r w_r p_ra p_rb for b <= a, at the point of the last gradient pass.

    squares is [tokens, tokens] and holds, until the last line, the sums without the factors w_a w_b.
    """
    size = z.shape[0]
    p = np.empty(size)
    for r in range(first, last):
        start, end = indptr[r], indptr[r + 1]
        if inverse[r] == 0.0:
            continue
        scale = weight[r] * inverse[r] * inverse[r]
        if dense:
            for c in range(size):
                p[c] = counts[start + c]
            for a in range(size):
                if p[a] > 0:
                    share = scale * p[a]
                    for b in range(a + 1):
                        squares[a, b] += share * p[b]
        else:
            for k in range(start, end):
                a = local[k]
                share = scale * counts[k]
                for j in range(start, k + 1):
                    squares[a, local[j]] += share * counts[j]
    for a in range(size):
        for b in range(a + 1):
            squares[a, b] *= w[a] * w[b]
    for r in range(first, last):
        if inverse[r] == 0.0:
            _low_squares(dense, indptr[r], indptr[r + 1], local, counts, weight[r], z, squares)


@kernel
def _low_squares(
    dense: bool,
    start: int,
    end: int,
    local: NDArray[Any],
    counts: NDArray[Any],
    weight: float,
    z: FloatArray,
    squares: FloatArray,
) -> None:
    best, s = _low_sum(dense, start, end, local, counts, z, z, False)
    for k in range(start, end):
        if counts[k] > 0:
            a = k - start if dense else local[k]
            share = weight * counts[k] * np.exp(z[a] - best) / (s * s)
            for j in range(start, k + 1):
                if counts[j] > 0:
                    b = j - start if dense else local[j]
                    squares[a, b] += share * counts[j] * np.exp(z[b] - best)
