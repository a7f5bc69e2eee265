"""Kernels that make base transitions of counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray


@kernel
def fill_rows(
    ptr: IntArray, token: IntArray, p: FloatArray, share: FloatArray, unigram: FloatArray, frequent: IntArray,
    tokens: NDArray[np.int32], log_p: FloatArray,
) -> None:  # fmt: skip
    """Write rows of one width: what came after each query, likeliest first, then the most frequent of all other tokens.

    Args:
        ptr: [R + 1] where the followers of each query begin.
        token, p: [F] the followers of a query, likeliest first, and their probabilities.
        share: [R] by which a token that never followed the query has its frequency multiplied.
        unigram: [V]; frequent: [V] all tokens, the most frequent first.
        tokens, log_p: [R, width] are written.
    """
    width = tokens.shape[1]
    mark = np.full(len(unigram), -1, np.int64)
    for r in range(len(ptr) - 1):
        kept = min(width, ptr[r + 1] - ptr[r])
        for place in range(kept):
            at = ptr[r] + place
            tokens[r, place], log_p[r, place] = token[at], np.log(p[at])
            mark[token[at]] = r
        at = 0
        for place in range(kept, width):
            while mark[frequent[at]] == r:
                at += 1
            tokens[r, place], log_p[r, place] = frequent[at], np.log(share[r] * unigram[frequent[at]])
            at += 1
