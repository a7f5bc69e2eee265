"""Kernels over the rows of a base transition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.exponentials import exponentials
from ccmc._data.types import FloatArray, IntArray

Int32Array = NDArray[np.int32]
Moments = tuple[float, float, float]


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
def log_between(
    row: IntArray, tokens: Int32Array, log_p: FloatArray, log_scale: FloatArray, log_unigram: FloatArray,
    query: IntArray, token: IntArray, out: FloatArray,
) -> None:  # fmt: skip
    """log P0 of different tokens after each of some queries, [queries, tokens], in O(tokens + top) a query."""
    place = np.full(len(log_unigram), -1, np.int64)
    for c in range(len(token)):
        place[token[c]] = c
    for n in range(len(query)):
        stored = row[query[n]]
        shift = log_scale[stored] if stored >= 0 else 0.0
        for c in range(len(token)):
            out[n, c] = log_unigram[token[c]] + shift
        if stored >= 0:
            for k in range(tokens.shape[1]):
                c = place[tokens[stored, k]]
                if c >= 0:
                    out[n, c] = log_p[stored, k]


@summing_kernel
def moments_of(q: FloatArray, many: int, a: float, e: FloatArray, scratch: FloatArray, bits: IntArray) -> Moments:
    """Sums of exp(a q), and of that times q and q^2; -inf counts for nothing."""
    for j in range(many):
        e[j] = a * q[j]
    exponentials(e, many, scratch, bits)
    s0, s1, s2 = 0.0, 0.0, 0.0
    for j in range(many):
        value = q[j] if q[j] > -np.inf else 0.0
        s0 += e[j]
        s1 += e[j] * value
        s2 += e[j] * value * value
    return s0, s1, s2


@kernel
def moments_of_rows(
    tokens: Int32Array, log_p: FloatArray, log_scale: FloatArray, log_unigram: FloatArray, a: float, out: FloatArray
) -> None:
    """[R + 1, 3] log sum of P0^a, and mean and mean square of log P0 under P0^a; last the unigram itself."""
    size, top = len(log_unigram), tokens.shape[1]
    e, scratch, q = np.empty(size), np.empty(size), np.empty(top)
    bits = scratch.view(np.int64)
    whole0, whole1, whole2 = moments_of(log_unigram, size, a, e, scratch, bits)
    for r in range(tokens.shape[0]):
        for place in range(top):
            q[place] = log_unigram[tokens[r, place]]
        own0, own1, own2 = moments_of(q, top, a, e, scratch, bits)
        tail0, tail1, tail2 = whole0 - own0, whole1 - own1, whole2 - own2
        s0, s1, s2 = moments_of(log_p[r], top, a, e, scratch, bits)
        shift = log_scale[r]
        if shift > -np.inf and tail0 > 0.0:
            factor = np.exp(a * shift)
            s0 += factor * tail0
            s1 += factor * (tail1 + shift * tail0)
            s2 += factor * (tail2 + 2.0 * shift * tail1 + shift * shift * tail0)
        out[r, 0], out[r, 1], out[r, 2] = np.log(s0), s1 / s0, s2 / s0
    out[-1, 0], out[-1, 1], out[-1, 2] = np.log(whole0), whole1 / whole0, whole2 / whole0
