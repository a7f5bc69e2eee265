"""Compiled passes over blocks of attention: what torch does in six passes over memory, in two.

Arrays are float32 [H, L, B], keys down, queries across, as in `blocks`. A query sees the keys of one stretch, so no
mask is made: key l of query b is seen where l - before <= b < l - before + window.
"""

from __future__ import annotations

import numba
import numpy as np

from harness.fast_exp import exp32

_FAST = {"contract", "nsz", "reassoc"}  # but nothing that lets a NaN get lost
_STEP = 64  # sums over so many keys are float32, those of them float64


@numba.njit(inline="always")
def _stretch(key, before, window, width):  # type: ignore[no-untyped-def]
    """The queries that see a key: first, and one past the last."""
    first = min(max(0, key - before), width)
    return first, max(first, min(width, key - before + window))


@numba.njit(fastmath=_FAST)
def _add(to, values):  # type: ignore[no-untyped-def]
    for b in range(len(to)):
        to[b] += values[b]


@numba.njit(fastmath=_FAST)
def _add_product(to, values, others):  # type: ignore[no-untyped-def]
    for b in range(len(to)):
        to[b] += values[b] * others[b]


@numba.njit(fastmath=_FAST)
def _multiply(to, values):  # type: ignore[no-untyped-def]
    for b in range(len(to)):
        to[b] *= values[b]


@numba.njit(fastmath=_FAST)
def _raise(to, values):  # type: ignore[no-untyped-def]
    for b in range(len(to)):
        to[b] = max(to[b], values[b])


@numba.njit(fastmath=_FAST)
def _shift(values, top, shifted, weight):  # type: ignore[no-untyped-def]
    for b in range(len(top)):
        shifted[b] = values[b] - top[b]
        weight[b] = exp32(shifted[b])


@numba.njit(fastmath=_FAST)
def _tops(values, before, window, top):  # type: ignore[no-untyped-def]
    """[B] the largest seen value of each query."""
    keys, width = values.shape
    top[:] = np.float32(-3e38)
    for key in range(keys):
        first, last = _stretch(key, before, window, width)
        if last - first == width:
            _raise(top, values[key])
        else:
            _raise(top[first:last], values[key, first:last])


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def softmax(values, before, window, columns, token, log_total, entropy):  # type: ignore[no-untyped-def]
    """Overwrite scores by their softmax over the keys; 0 where a key is not seen.

    Args:
        values: [H, L, B] scores.
        before, window: which keys are seen.
        columns: [L] the type of each key.
        token: [H, u, B] of zeros, gets the weights summed per type.
        log_total, entropy: float64 [H, B], get the logarithm of the normaliser, and the entropy in nats.
    """
    heads, keys, width = values.shape
    top, share, sums = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    shifted, weight, scored = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for h in range(heads):
        _tops(values[h], before, window, top)
        total, expected = np.zeros(width), np.zeros(width)
        sums[:], scored[:] = 0.0, 0.0
        for key in range(keys):
            first, last = _stretch(key, before, window, width)
            row = values[h, key]
            if last - first < width:
                row[:first], row[last:] = -np.inf, -np.inf
            _shift(row, top, shifted, weight)
            if last - first < width:
                shifted[:first], shifted[last:] = 0.0, 0.0
            row[:] = weight
            _add(sums, weight)
            _add_product(scored, weight, shifted)
            if key % _STEP == _STEP - 1 or key == keys - 1:
                _add(total, sums)
                _add(expected, scored)
                sums[:], scored[:] = 0.0, 0.0
        for b in range(width):
            log_total[h, b] = np.log(total[b]) + top[b]
            entropy[h, b] = np.log(total[b]) - expected[b] / total[b]
            share[b] = 1.0 / total[b]
        for key in range(keys):
            _multiply(values[h, key], share)
            _add(token[h, columns[key]], values[h, key])


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def weights(values, before, window, columns, truth, token, top, total, cross):  # type: ignore[no-untyped-def]
    """Weights of types from log weights; no weights of positions are written.

    Args:
        values: [H, L, B] log weights of positions or types.
        before, window, columns: as above.
        truth: [H, L, B] observed weights, 0 where a key is not seen; or [H, 0, B].
        token: [H, u, B] of zeros, gets the weights, those of the largest log weight being 1.
        top: [H, B], gets the largest log weight.
        total, cross: float64 [H, B] of zeros, get the sum of the weights, and that of the observed ones times (log
            weights - top).
    """
    heads, keys, width = values.shape
    shifted, weight = np.empty(width, np.float32), np.empty(width, np.float32)
    sums, crossed = np.empty(width, np.float32), np.empty(width, np.float32)
    for h in range(heads):
        _tops(values[h], before, window, top[h])
        sums[:], crossed[:] = 0.0, 0.0
        for key in range(keys):
            first, last = _stretch(key, before, window, width)
            _shift(values[h, key], top[h], shifted, weight)
            if last - first < width:
                weight[:first], weight[last:] = 0.0, 0.0
                shifted[:first], shifted[last:] = 0.0, 0.0
            _add(token[h, columns[key]], weight)
            _add(sums, weight)
            if truth.shape[1]:
                _add_product(crossed, truth[h, key], shifted)
            if key % _STEP == _STEP - 1 or key == keys - 1:
                _add(total[h], sums)
                _add(cross[h], crossed)
                sums[:], crossed[:] = 0.0, 0.0


@numba.njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def shared(token, share, truth, where, common, best, there):  # type: ignore[no-untyped-def]
    """What two distributions over types have in common, and the likeliest type.

    Args:
        token: [H, u, B] weights; share: [H, B] what makes them sum to 1.
        truth: [H, u, B] the other distribution.
        where: [H, B] a type for each query.
        common: [H, B] of zeros, gets the sum of the smaller of the two.
        best, there: [H, B], get the largest weight, and that of the type `where`.
    """
    heads, types, width = truth.shape
    for h in range(heads):
        of = h if len(token) == heads else 0
        best[h] = token[of, 0]
        for u in range(types):
            _common(common[h], token[of, u], share[of], truth[h, u])
            _raise(best[h], token[of, u])
        for b in range(width):
            there[h, b] = token[of, where[h, b], b]


@numba.njit(fastmath=_FAST)
def _common(to, token, share, truth):  # type: ignore[no-untyped-def]
    for b in range(len(to)):
        to[b] += min(token[b] * share[b], truth[b])
