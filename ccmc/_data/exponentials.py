"""Exponentials of many numbers at once, in steps that compilers turn into vector instructions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray

_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUND = 6755399441055744.0  # 1.5 x 2^52: what is added to it is rounded to a whole number, held in its last bits
_LEAST = -700.0  # below, 0 is close enough

# 1/k!, k = 13 .. 2: the rest of the series is below half a unit in the last place, as |r| <= log(2) / 2
_C13, _C12, _C11, _C10 = 1 / 6227020800, 1 / 479001600, 1 / 39916800, 1 / 3628800
_C9, _C8, _C7, _C6, _C5, _C4, _C3 = 1 / 362880, 1 / 40320, 1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6


@kernel
def exponentials(x: FloatArray, many: int, scratch: FloatArray, bits: NDArray[np.int64]) -> None:
    """exp of the first `many` numbers, none above 700, in place; 0 below -700.

    Sums must stay in their order: x + 1.5 x 2^52 - 1.5 x 2^52 is x rounded.

    Args:
        x: [many or more].
        many: how many.
        scratch: as long as x; overwritten.
        bits: the same memory as `scratch`, as integers.
    """
    for c in range(many):
        scratch[c] = max(x[c], _LEAST) * _LOG2E + _ROUND
    for c in range(many):
        k = scratch[c] - _ROUND
        t = max(x[c], _LEAST)
        r = (t - k * _LN2_HIGH) - k * _LN2_LOW
        p = _C13
        p = p * r + _C12
        p = p * r + _C11
        p = p * r + _C10
        p = p * r + _C9
        p = p * r + _C8
        p = p * r + _C7
        p = p * r + _C6
        p = p * r + _C5
        p = p * r + _C4
        p = p * r + _C3
        p = p * r + 0.5
        p = p * r + 1.0
        x[c] = p * r + 1.0 if x[c] >= _LEAST else 0.0
    for c in range(many):
        bits[c] = (bits[c] + 1023) << 52
    for c in range(many):
        x[c] *= scratch[c]
