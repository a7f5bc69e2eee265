"""The gradient over dense rows of one query, read column by column.

A row's sum S_r = sum_c m_rc w_c and its share of slope_c = sum_r w_r m_rc / S_r need the row twice, with a division
between: row by row, each waits for the last. In blocks of columns (see `_data/columns.py`) both loops run along the
rows with nothing to wait for, four columns at a time. The meaning of all sums is that of `passes.py`. While a fit is
far from its answer, single precision will do: twice as many numbers fit into a vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccmc._data.columns import BLOCK
from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.types import FloatArray
from ccmc._fit.passes import TINY, low_row

_MANTISSA = 0x000FFFFFFFFFFFFF
_ONE = 0x3FF0000000000000
# Sums of single precision below this are taken as rows that underflow, which are summed on their own.
_TINY_SINGLE = np.float32(1e-30)


@kernel
def column_pass(
    coarse: bool,
    rows: int,
    columns: NDArray[Any],
    stride: int,
    counts: NDArray[Any],
    weight: FloatArray,
    z: FloatArray,
    w: FloatArray,
    inverse: FloatArray,
    slope: FloatArray,
    extra: FloatArray,
) -> float:
    """What `gradient_pass` computes, for all dense rows of a query; `coarse`: to seven digits only."""
    size = z.shape[0]
    total = 0.0
    sums, nowhere = np.empty(BLOCK), np.empty(0, np.int64)
    single_sums, single_w, single_slope = np.empty(BLOCK, np.float32), w.astype(np.float32), np.empty(size, np.float32)
    for begin in range(0, rows, BLOCK):
        height = min(BLOCK, rows - begin)
        block = columns[begin * size : (begin + height) * size]
        into, part = inverse[begin : begin + height], weight[begin : begin + height]
        s = sums[:height]
        if coarse:
            single = single_sums[:height]
            _add_columns(block, single_w, size, single)
            for r in range(height):
                s[r] = single[r] if single[r] > _TINY_SINGLE else 0.0
            total += _invert(s, part, into)
            for r in range(height):
                single[r] = s[r]
            single_slope[:] = 0.0
            _add_rows(block, single, size, single_slope)
            for c in range(size):
                slope[c] += single_slope[c]
        else:
            _add_columns(block, w, size, s)
            total += _invert(s, part, into)
            _add_rows(block, s, size, slope)
    for r in range(rows):
        if inverse[r] == 0.0:
            first = r * stride
            total += weight[r] * low_row(True, first, first + size, nowhere, counts, weight[r], z, extra)
    return total


@summing_kernel
def _add_columns(block: NDArray[Any], w: NDArray[Any], size: int, s: NDArray[Any]) -> None:
    """s_r = sum_c m_rc w_c, in the precision of w and s."""
    height = s.shape[0]
    number = s.dtype.type
    s[:] = 0.0
    c = 0
    while c + 4 <= size:
        at = c * height
        a, b = block[at : at + height], block[at + height : at + 2 * height]
        d, e = block[at + 2 * height : at + 3 * height], block[at + 3 * height : at + 4 * height]
        wa, wb, wd, we = w[c], w[c + 1], w[c + 2], w[c + 3]
        for r in range(height):
            s[r] += wa * number(a[r]) + wb * number(b[r]) + wd * number(d[r]) + we * number(e[r])
        c += 4
    while c < size:
        a = block[c * height : (c + 1) * height]
        wa = w[c]
        for r in range(height):
            s[r] += wa * number(a[r])
        c += 1


@summing_kernel
def _invert(s: FloatArray, weight: FloatArray, inverse: FloatArray) -> float:
    """sum_r w_r log s_r of the rows that do not underflow; leaves 1 / s_r in `inverse` and w_r / s_r in `s`."""
    low = 0
    unit = weight[0]
    for r in range(s.shape[0]):
        low += not s[r] > TINY
    for r in range(s.shape[0]):
        low += weight[r] != unit
    total = 0.0
    if low == 0:
        total = unit * _log_product(s)
        for r in range(s.shape[0]):
            inverse[r] = 1.0 / s[r]
        for r in range(s.shape[0]):
            s[r] = unit * inverse[r]
        return float(total)
    for r in range(s.shape[0]):
        inverse[r] = 1.0 / s[r] if s[r] > TINY else 0.0
        total += weight[r] * np.log(s[r]) if s[r] > TINY else 0.0
        s[r] = weight[r] * inverse[r]
    return float(total)


@summing_kernel
def _log_product(s: FloatArray) -> float:
    """sum_r log s_r of positive normal numbers by one logarithm: exponents add up, mantissas multiply below 2^512."""
    words = s.view(np.int64)
    exponents = 0
    for r in range(s.shape[0]):
        exponents += words[r] >> 52
    mantissas = np.empty(BLOCK)
    bits = mantissas.view(np.int64)
    for r in range(s.shape[0]):
        bits[r] = (words[r] & _MANTISSA) | _ONE
    product = 1.0
    for r in range(s.shape[0]):
        product *= mantissas[r]
    return float(np.log(product) + (exponents - 1023 * s.shape[0]) * np.log(2.0))


@summing_kernel
def _add_rows(block: NDArray[Any], s: NDArray[Any], size: int, slope: NDArray[Any]) -> None:
    """slope_c += sum_r m_rc s_r, in the precision of s and slope."""
    height = s.shape[0]
    number = s.dtype.type
    zero = number(0.0)
    c = 0
    while c + 4 <= size:
        at = c * height
        a, b = block[at : at + height], block[at + height : at + 2 * height]
        d, e = block[at + 2 * height : at + 3 * height], block[at + 3 * height : at + 4 * height]
        ta, tb, td, te = zero, zero, zero, zero
        for r in range(height):
            v = s[r]
            ta += v * number(a[r])
            tb += v * number(b[r])
            td += v * number(d[r])
            te += v * number(e[r])
        slope[c] += ta
        slope[c + 1] += tb
        slope[c + 2] += td
        slope[c + 3] += te
        c += 4
    while c < size:
        a = block[c * height : (c + 1) * height]
        ta = zero
        for r in range(height):
            ta += s[r] * number(a[r])
        slope[c] += ta
        c += 1
