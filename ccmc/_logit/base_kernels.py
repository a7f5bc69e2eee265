"""Kernels over the rows of a base transition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray

Int32Array = NDArray[np.int32]


@kernel
def log_of_pair(
    row: IntArray,
    tokens: Int32Array,
    log_p: FloatArray,
    log_scale: FloatArray,
    log_unigram: FloatArray,
    query: int,
    token: int,
) -> float:
    """log P0[query, token]."""
    stored = row[query]
    if stored < 0:
        return float(log_unigram[token])
    for place in range(tokens.shape[1]):
        if tokens[stored, place] == token:
            return float(log_p[stored, place])
    return float(log_unigram[token] + log_scale[stored])


@kernel
def log_of_pairs(
    row: IntArray,
    tokens: Int32Array,
    log_p: FloatArray,
    log_scale: FloatArray,
    log_unigram: FloatArray,
    query: IntArray,
    token: IntArray,
    out: FloatArray,
) -> None:
    """The same for n pairs."""
    for n in range(len(query)):
        out[n] = log_of_pair(row, tokens, log_p, log_scale, log_unigram, query[n], token[n])


@kernel
def moments_of_rows(
    tokens: Int32Array, log_p: FloatArray, log_scale: FloatArray, log_unigram: FloatArray, a: float, out: FloatArray
) -> None:
    """[R + 1, 3] log sum of P0^a, and mean and mean square of log P0 under P0^a; last the unigram itself."""
    whole0, whole1, whole2 = 0.0, 0.0, 0.0
    for j in range(len(log_unigram)):
        q = log_unigram[j]
        e = np.exp(a * q)
        whole0 += e
        whole1 += e * q
        whole2 += e * q * q
    for r in range(tokens.shape[0]):
        tail0, tail1, tail2 = whole0, whole1, whole2
        s0, s1, s2 = 0.0, 0.0, 0.0
        for place in range(tokens.shape[1]):
            q = log_unigram[tokens[r, place]]
            e = np.exp(a * q)
            tail0 -= e
            tail1 -= e * q
            tail2 -= e * q * q
            p = log_p[r, place]
            if p == -np.inf:
                continue
            e = np.exp(a * p)
            s0 += e
            s1 += e * p
            s2 += e * p * p
        shift = log_scale[r]
        if shift > -np.inf and tail0 > 0.0:
            factor = np.exp(a * shift)
            s0 += factor * tail0
            s1 += factor * (tail1 + shift * tail0)
            s2 += factor * (tail2 + 2.0 * shift * tail1 + shift * shift * tail0)
        out[r, 0], out[r, 1], out[r, 2] = np.log(s0), s1 / s0, s2 / s0
    out[-1, 0], out[-1, 1], out[-1, 2] = np.log(whole0), whole1 / whole0, whole2 / whole0
