"""Dense rows of one query, kept column after column in blocks, so that loops can run along the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel

# Rows of a block: single bytes of that many rows stay in the nearest cache.
BLOCK = 512


@kernel
def to_columns(rows: int, size: int, stride: int, counts: NDArray[Any]) -> NDArray[Any]:
    """Dense rows [rows, stride] as blocks of `BLOCK` rows, within which the first `size` columns follow one another."""
    columns = np.empty(rows * size, counts.dtype)
    for begin in range(0, rows, BLOCK):
        height = min(BLOCK, rows - begin)
        block = columns[begin * size : (begin + height) * size]
        whole = height - height % 8
        for r in range(0, whole, 8):
            # Eight rows at a time, so that a column receives eight neighbours at once.
            rows8 = counts[(begin + r) * stride : (begin + r + 8) * stride]
            a0, a1, a2, a3 = rows8[:stride], rows8[stride:], rows8[2 * stride :], rows8[3 * stride :]
            a4, a5, a6, a7 = rows8[4 * stride :], rows8[5 * stride :], rows8[6 * stride :], rows8[7 * stride :]
            for c in range(size):
                o = block[c * height + r : c * height + r + 8]
                o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7] = a0[c], a1[c], a2[c], a3[c], a4[c], a5[c], a6[c], a7[c]
        for r in range(whole, height):
            row = counts[(begin + r) * stride : (begin + r) * stride + size]
            for c in range(size):
                block[c * height + r] = row[c]
    return columns
