"""Kernels of the simulation: one reinforced walk after another.

The next token after query i is j with chance proportional to m_j exp(theta[i, j]). A token at a uniformly drawn
position of the context is a draw from the counts m, so it is accepted with chance exp(theta[i, j] - bound), where
bound is the largest logit of row i among the prompt's tokens (no other token can ever occur). A refusal says nothing
about the next draw, so after some refusals in a row the token may as well be drawn by summing over the tokens
present: the law stays exact, and the cost stays within a constant of the better of the two ways.

Each path has its own random stream (xoshiro256++ seeded by SplitMix64 from the seed and the path's number), so a path
does not depend on the threads or on the paths beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._numba import kernel
from ccmc._types import FloatArray, IntArray

U64 = np.uint64
_GOLDEN = U64(0x9E3779B97F4A7C15)
_MIX_1 = U64(0xBF58476D1CE4E5B9)
_MIX_2 = U64(0x94D049BB133111EB)
_UNIT = 1.0 / 9007199254740992.0


@kernel
def _mix(x: np.uint64) -> np.uint64:
    """SplitMix64's scrambling of a 64-bit word."""
    x = (x ^ (x >> U64(30))) * _MIX_1
    x = (x ^ (x >> U64(27))) * _MIX_2
    return x ^ (x >> U64(31))


@kernel
def _seed_stream(key: NDArray[np.uint64], path: int, state: NDArray[np.uint64]) -> None:
    """State [4] of a path's stream from the seed's key [4]."""
    x = U64(path)
    for k in range(4):
        x = _mix((x + _GOLDEN) ^ key[k])
    for k in range(4):
        x += _GOLDEN
        state[k] = _mix(x)


@kernel
def _uniform(state: NDArray[np.uint64]) -> float:
    """Next number of the stream in [0, 1), with 53 bits."""
    total = state[0] + state[3]
    word = ((total << U64(23)) | (total >> U64(41))) + state[0]
    moved = state[1] << U64(17)
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= moved
    state[3] = (state[3] << U64(45)) | (state[3] >> U64(19))
    return float(word >> U64(11)) * _UNIT


@kernel
def _score(logits: FloatArray, keys: FloatArray, queries: FloatArray, i: int, j: int) -> float:
    """theta[i, j], looked up where logits are given and multiplied out where they are not."""
    if logits.shape[0] > 0:
        return float(logits[i, j])
    total = 0.0
    for d in range(keys.shape[1]):
        total += queries[i, d] * keys[j, d]
    return total


@kernel
def walk(
    paths: IntArray,
    tokens: IntArray,
    offsets: IntArray,
    window: int,
    key: NDArray[np.uint64],
    logits: FloatArray,
    keys: FloatArray,
    queries: FloatArray,
    vocab_size: int,
    out: IntArray,
) -> None:
    """Continue the prompts `paths` by out.shape[1] tokens each, into the rows of `out` of the same numbers.

    Prompt p is tokens[offsets[p]:offsets[p + 1]]. Either logits [K, K] or keys and queries [K, d] are given, the
    others are empty.
    """
    steps = out.shape[1]
    counts = np.zeros(vocab_size, np.int64)
    bound = np.full(vocab_size, np.nan)
    state = np.empty(4, np.uint64)
    for p in paths:
        length = offsets[p + 1] - offsets[p]
        history = np.empty(length + steps, np.int64)
        history[:length] = tokens[offsets[p] : offsets[p + 1]]
        present = np.unique(history[:length])
        scores = np.empty(present.shape[0])
        for t in range(max(0, length - window), length):
            counts[history[t]] += 1
        _seed_stream(key, p, state)
        patience = max(4, present.shape[0] // 2)
        for t in range(length, length + steps):
            query = history[t - 1]
            if np.isnan(bound[query]):
                best = -np.inf
                for token in present:
                    best = max(best, _score(logits, keys, queries, query, token))
                bound[query] = best
            size = min(t, window)
            token = -1
            for _ in range(patience):
                proposed = history[t - 1 - int(_uniform(state) * size)]
                if _uniform(state) < np.exp(_score(logits, keys, queries, query, proposed) - bound[query]):
                    token = proposed
                    break
            if token < 0:
                token = _draw_by_sum(present, counts, logits, keys, queries, query, scores, state)
            history[t] = token
            counts[token] += 1
            if t >= window:
                counts[history[t - window]] -= 1
        out[p] = history[length:]
        for token in present:
            counts[token] = 0
            bound[token] = np.nan


@kernel
def _draw_by_sum(
    present: IntArray,
    counts: IntArray,
    logits: FloatArray,
    keys: FloatArray,
    queries: FloatArray,
    query: int,
    scores: FloatArray,
    state: NDArray[np.uint64],
) -> int:
    """One token by inversion over the tokens present, relative to the best of them."""
    best = -np.inf
    for k in range(present.shape[0]):
        if counts[present[k]] > 0:
            scores[k] = _score(logits, keys, queries, query, present[k])
            best = max(best, scores[k])
    total = 0.0
    for k in range(present.shape[0]):
        if counts[present[k]] > 0:
            scores[k] = counts[present[k]] * np.exp(scores[k] - best)
            total += scores[k]
    left = _uniform(state) * total
    last = -1
    for k in range(present.shape[0]):
        if counts[present[k]] > 0 and scores[k] > 0:
            last = present[k]
            left -= scores[k]
            if left < 0:
                break
    return last
