"""The exponential function for compiled loops: arithmetic alone, so that loops over it run on vector units."""

from __future__ import annotations

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
