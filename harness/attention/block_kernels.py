"""Compiled passes over blocks of attention: what torch does in a dozen walks over memory, in two or three.

Arrays are float32 [H, L, B], keys down, queries across, as in `blocks`. A query sees the keys of one stretch, so no
mask is made: key l of query b is seen where l - before <= b < l - before + window. Nothing else of an array is read.
"""

from __future__ import annotations

import numba
import numpy as np

from harness.attention.fast_exp import exp32, log32

# Loops are short and touch few arrays each: with more than four or so, LLVM gives up to prove them apart, and they stay
# scalar.
FAST = {"contract", "nsz", "reassoc"}  # but nothing that lets a NaN get lost
STEP = 64  # sums over so many keys are float32, those of them float64
_LANES = 8  # arrays that take turns at sums over distances: a vector written now is not read again at once


@numba.njit(inline="always")
def stretch(key, before, window, width):  # type: ignore[no-untyped-def]
    """The queries that see a key: first, and one past the last."""
    first = min(max(0, key - before), width)
    return first, max(first, min(width, key - before + window))


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def add(to, values):  # type: ignore[no-untyped-def]
    for b in range(len(values)):
        to[b] += values[b]


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def add_product(to, values, others):  # type: ignore[no-untyped-def]
    for b in range(len(to)):
        to[b] += values[b] * others[b]


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def raise_to(to, values):  # type: ignore[no-untyped-def]
    for b in range(len(to)):
        to[b] = max(to[b], values[b])


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def settle(total, sums, done):  # type: ignore[no-untyped-def]
    """Now and then, add float32 sums to float64 ones."""
    if done:
        for b in range(len(total)):
            total[b] += sums[b]
            sums[b] = 0.0


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _multiply(to, values):  # type: ignore[no-untyped-def]
    for b in range(len(to)):
        to[b] *= values[b]


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _weigh(scores, top, token, scored):  # type: ignore[no-untyped-def]
    """Overwrite scores by weights; add them to those of their type, and times scores to `scored`."""
    for b in range(len(top)):
        shifted = scores[b] - top[b]
        weight = exp32(shifted)
        scores[b] = weight
        token[b] += weight
        scored[b] += weight * shifted


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _share_out(token, share, best):  # type: ignore[no-untyped-def]
    for b in range(len(token)):
        token[b] *= share[b]
        best[b] = max(best[b], token[b])


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _add_facts(token, log_counts, entropy, counted):  # type: ignore[no-untyped-def]
    for b in range(len(token)):
        entropy[b] -= token[b] * log32(token[b])  # nothing times the least logarithm is nothing
        counted[b] += token[b] * log_counts[b]


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _softmax(values, before, window, columns, log_counts, token, facts, share):  # type: ignore[no-untyped-def]
    """One head: scores [L, B] become weights, in units of which `share` [B] makes them sum to 1."""
    keys, width = values.shape
    top = np.full(width, np.float32(-3e38))
    for key in range(keys):
        first, last = stretch(key, before, window, width)
        raise_to(top[first:last], values[key, first:last])
    scored, expected, total = np.zeros(width, np.float32), np.zeros(width), np.zeros(width)
    for key in range(keys):
        first, last = stretch(key, before, window, width)
        row, part = values[key], slice(first, last)
        row[:first], row[last:] = 0.0, 0.0
        _weigh(row[part], top[part], token[columns[key], part], scored[part])
        settle(expected, scored, key % STEP == STEP - 1 or key == keys - 1)
    sums = np.zeros(width, np.float32)
    for u in range(len(token)):
        add(sums, token[u])
        settle(total, sums, u % STEP == STEP - 1 or u == len(token) - 1)
    for b in range(width):
        facts[0, b] = np.log(total[b]) + top[b]
        facts[1, b] = np.log(total[b]) - expected[b] / total[b]
        share[b] = 1.0 / total[b]
    for u in range(len(token)):
        _share_out(token[u], share, facts[4])
        _add_facts(token[u], log_counts[u], facts[2], facts[3])


@numba.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy", forceinline=True)
def softmax(values, before, window, columns, log_counts, token, facts):  # type: ignore[no-untyped-def]
    """Overwrite scores by their softmax over the keys; 0 where a key is not seen.

    Args:
        values: [H, L, B] scores.
        before, window: which keys are seen.
        columns: [L] the type of each key.
        log_counts: [u, B] logarithm of how often each type is seen.
        token: [H, u, B] of zeros, gets the weights summed per type.
        facts: [H, 5, B] of zeros, gets the logarithm of the normaliser, the entropies over positions and over types in
            nats, the mean logarithm of the count, and the weight of the most attended type.
    """
    heads, keys, width = values.shape
    share = np.empty(width, np.float32)
    for h in range(heads):
        _softmax(values[h], before, window, columns, log_counts, token[h], facts[h], share)
        for key in range(keys):
            _multiply(values[h, key], share)


@numba.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy", forceinline=True)
def sums(  # type: ignore[no-untyped-def]
    values, before, window, columns, log_counts, token, facts, queries, pairs, distance
):
    """The same, to add up weights per pair of types and per distance; what the scores become is of no use.

    Args:
        values, before, window, columns, log_counts, token, facts: as above.
        queries: [B] the type of each query.
        pairs: [H, U, U] gets the weights of each (query, key) added.
        distance: float64 [H, T] gets those of each distance added.
    """
    heads, keys, width = values.shape
    share, farthest = np.empty(width, np.float32), before + width  # one past the largest distance
    lanes, turned = np.empty((_LANES, farthest), np.float32), np.empty((8, token.shape[1]), np.float32)
    for h in range(heads):
        _softmax(values[h], before, window, columns, log_counts, token[h], facts[h], share)
        lanes[:] = 0.0
        for key in range(keys):
            first, last = stretch(key, before, window, width)
            lane, nearest = lanes[key % _LANES], before - key  # distance of the first query
            add_product(lane[nearest + first : nearest + last], values[h, key, first:last], share[first:last])
        for lane in lanes:
            add(distance[h, :farthest], lane)
        for part in range(0, width, 8):  # so many queries are turned at once
            number = min(8, width - part)
            for u in range(len(token[h])):
                for b in range(number):
                    turned[b, u] = token[h, u, part + b]
            for b in range(number):
                add(pairs[h, queries[part + b]], turned[b])
