"""Exponential and logarithm for compiled loops: arithmetic alone, so that loops over them run on vector units."""

from __future__ import annotations

from math import factorial

import numba
import numpy as np

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # the first has 32 zeros at its end


@numba.njit(inline="always")
def exp64(x):  # type: ignore[no-untyped-def]
    """Exponential of a float64 that is not positive, to a few units of round-off; what is below -700 counts as -700."""
    x = max(x, -700.0)
    whole = np.floor(x * LOG2_E + 0.5)
    r = (x - whole * LN2_HIGH) - whole * LN2_LOW  # |r| <= ln(2) / 2: the series ends at r^12 / 12!
    p = r / 479001600.0 + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * np.int64((np.int64(whole) + 1023) << 52).view(np.float64)


_LOG2_E, _HALF, _ONE, _LOWEST = np.float32(LOG2_E), np.float32(0.5), np.float32(1.0), np.float32(-87.0)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(np.log(2.0) - 0.693359375)  # nine bits, and the rest
_C3, _C4, _C5, _C6, _C7 = (np.float32(1.0 / factorial(n)) for n in range(3, 8))


@numba.njit(inline="always")
def exp32(x):  # type: ignore[no-untyped-def]
    """Exponential of a float32 that is not positive, to a few units of its round-off; 0 for what is below -87."""
    seen = max(x, _LOWEST)
    whole = np.floor(seen * _LOG2_E + _HALF)
    r = (seen - whole * _LN2_HIGH) - whole * _LN2_LOW
    p = r * _C7 + _C6
    p = p * r + _C5
    p = p * r + _C4
    p = p * r + _C3
    p = p * r + _HALF
    p = p * r + _ONE
    p = p * r + _ONE
    found = p * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return found if x >= _LOWEST else np.float32(0.0)


_TINY, _TWO = np.finfo(np.float32).tiny, np.float32(2.0)
_ROOT_HALF = np.int32(np.float32(np.sqrt(0.5)).view(np.int32))
_T3, _T5, _T7, _T9 = (np.float32(1.0 / n) for n in range(3, 10, 2))


@numba.njit(inline="always")
def log32(x):  # type: ignore[no-untyped-def]
    """Logarithm of a positive float32, to a few units of its round-off; what is below 1.2e-38 counts as that."""
    bits = np.float32(max(x, _TINY)).view(np.int32)
    power = (bits - _ROOT_HALF) >> np.int32(23)
    m = np.int32(bits - (power << np.int32(23))).view(np.float32)  # sqrt(1/2) ... sqrt(2)
    t = (m - _ONE) / (m + _ONE)  # log m = 2 artanh t, |t| < .172: the series ends at t^9 / 9
    s = t * t
    p = s * _T9 + _T7
    p = p * s + _T5
    p = p * s + _T3
    p = p * s * t + t
    whole = np.float32(power)
    return whole * _LN2_HIGH + (_TWO * p + whole * _LN2_LOW)
