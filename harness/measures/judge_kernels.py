"""Compiled comparison of log weights with the attention of a block; arrays are as in `harness.attention.block_kernels`.

Log weights come in parts, none of which need be there (an array of no length): they are added up row by row, and no
more than one head's are kept. What is found is told by `block_fidelity.judge`; it goes into zeros.
"""

from __future__ import annotations

import numba
import numpy as np

from harness.attention.block_kernels import FAST, STEP, add, add_product, raise_to, settle, stretch
from harness.attention.fast_exp import exp32, log32

TIE = 1e-6  # relative; what float32 cannot tell apart is tied
MATTERS = 1e-10  # attention below it adds nothing to a divergence, whatever the prediction
_NEAR, _LOST = np.float32(1.0 - TIE), 2.0 * np.finfo(np.float32).tiny


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _add_scaled(to, values, scale):  # type: ignore[no-untyped-def]
    for b in range(len(to)):
        to[b] += values[b] * scale


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _look_up(table, queries, into):  # type: ignore[no-untyped-def]
    """[u, B] the change of each query's row of a table [U, U]."""
    whole = len(queries) - len(queries) % 16
    for first in range(0, whole, 16):  # so many rows are read side by side
        for u in range(len(into)):
            for b in range(first, first + 16):
                into[u, b] = table[queries[b], u]
    for b in range(whole, len(queries)):
        for u in range(len(into)):
            into[u, b] = table[queries[b], u]


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _weigh_types(logs, top, weight, sums):  # type: ignore[no-untyped-def]
    for b in range(len(top)):
        logs[b] -= top[b]
        weight[b] = exp32(logs[b])
        sums[b] += weight[b]


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _weigh_positions(logs, top, token, truth, crossed):  # type: ignore[no-untyped-def]
    for b in range(len(top)):
        shifted = logs[b] - top[b]
        token[b] += exp32(shifted)
        crossed[b] += truth[b] * shifted


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _add_logs(token, truth, crossed, lost):  # type: ignore[no-untyped-def]
    for b in range(len(token)):
        crossed[b] += truth[b] * log32(token[b])
        lost[b] += truth[b] if token[b] < _LOST else np.float32(0.0)


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _meet(token, share, truth, common):  # type: ignore[no-untyped-def]
    for b in range(len(token)):
        common[b] += min(token[b] * share[b], truth[b])


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _choose(token, likely, one, chosen):  # type: ignore[no-untyped-def]
    for b in range(len(token)):
        one[b] = np.float32(1.0) if token[b] > likely[b] else np.float32(0.0)
        chosen[b] += one[b]


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _count_right(one, truth, most, right):  # type: ignore[no-untyped-def]
    for b in range(len(one)):
        right[b] += one[b] if truth[b] > most[b] else np.float32(0.0)


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _compare(token, share, truth, best, most_attended, found):  # type: ignore[no-untyped-def]
    """One head, over types: weights [u, B] of which `best` are the largest against attention [u, B]."""
    width = len(share)
    chosen, one = np.zeros(width, np.float32), np.empty(width, np.float32)
    likely, most = np.empty(width, np.float32), np.empty(width, np.float32)
    for b in range(width):
        likely[b], most[b] = best[b] * _NEAR, most_attended[b] * _NEAR
    for u in range(len(token)):
        _meet(token[u], share, truth[u], found[4])
        _choose(token[u], likely, one, chosen)
        _count_right(one, truth[u], most, found[5])
    for b in range(width):
        found[5, b] /= chosen[b]


@numba.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy", forceinline=True)
def types(values, change, queries, log_counts, truth, facts, found):  # type: ignore[no-untyped-def]
    """Compare log weights of types.

    Args:
        values: [H, u, B], or [1, u, B] where all heads get the same.
        change: [H, U, U] or none, added to the pair of each (query type, key type).
        queries: [B] the type of each query.
        log_counts: [u, B].
        truth: [H, u, B] attention per type; facts: [H, 5, B] of `softmax`.
        found: [H, 6, B] of zeros.
    """
    heads, size, width = truth.shape
    logs, weight = np.empty((size, width), np.float32), np.empty((size, width), np.float32)
    top, sums, share = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    total, cross, best = np.empty(width), np.empty(width), np.ones(width, np.float32)
    for h in range(heads):
        if h == 0 or len(values) > 1 or len(change):
            top[:], total[:], sums[:] = -3e38, 0.0, 0.0
            if len(change):
                _look_up(change[h], queries, logs)
            else:
                logs[:] = 0.0
            for u in range(size):
                add(logs[u], log_counts[u])
                add(logs[u], values[h if len(values) > 1 else 0, u])
                raise_to(top, logs[u])
            for u in range(size):
                _weigh_types(logs[u], top, weight[u], sums)
                settle(total, sums, u % STEP == STEP - 1 or u == size - 1)
            for b in range(width):
                share[b] = 1.0 / total[b]
        cross[:], sums[:] = 0.0, 0.0
        for u in range(size):
            add_product(sums, truth[h, u], logs[u])
            settle(cross, sums, u % STEP == STEP - 1 or u == size - 1)
        _compare(weight, share, truth[h], best, facts[h, 4], found[h])
        for b in range(width):
            found[h, 0, b], found[h, 1, b] = np.log(total[b]), top[b]
            found[h, 2, b], found[h, 3, b] = cross[b], cross[b] - facts[h, 3, b]  # in a type, all places are as likely


@numba.njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy", forceinline=True)
def positions(  # type: ignore[no-untyped-def]
    values, scale, profile, place, change, queries, columns, before, window, weight, truth, facts, found
):
    """Compare log weights of positions.

    Args:
        values: [H, L, B], or [1, L, B] where all heads get the same, or none; scale: [H] its factors, or none.
        profile: [H, T] or none, added at each distance; place: [H, L] or none, added to each key.
        change: [H, U, U] or none, added to the pair of each (query type, key type).
        queries, columns: [B], [L] the type of each query and key.
        before, window: which keys are seen.
        weight, truth: [H, L, B] and [H, u, B] attention per position and type; facts: [H, 5, B] of `softmax`.
        found: [H, 6, B] of zeros.
    """
    heads, keys, width = weight.shape
    size, parts = truth.shape[1], len(scale) + len(profile) + len(place) + len(change)
    whole, token = np.empty((keys if parts else 0, width), np.float32), np.empty((size, width), np.float32)
    added = np.empty((size, width), np.float32)
    top, best, share = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    crossed, lost = np.empty(width, np.float32), np.empty(width, np.float32)
    total, cross, cross_position = np.empty(width), np.empty(width), np.empty(width)
    for h in range(heads):
        given = values[h if len(values) > 1 else 0] if len(values) else whole
        logs = whole if parts else given
        if len(change):
            _look_up(change[h], queries, added)
        top[:] = -3e38
        for key in range(keys):
            first, last = stretch(key, before, window, width)
            row = logs[key, first:last]
            if parts:
                row[:] = place[h, key] if len(place) else np.float32(0.0)
                if len(values):
                    _add_scaled(row, given[key, first:last], scale[h] if len(scale) else np.float32(1.0))
                if len(profile):
                    add(row, profile[h, before - key + first : before - key + last])
                if len(change):
                    add(row, added[columns[key], first:last])
            raise_to(top[first:last], row)
        token[:], cross_position[:], crossed[:], lost[:] = 0.0, 0.0, 0.0, 0.0
        for key in range(keys):
            first, last = stretch(key, before, window, width)
            part = slice(first, last)
            _weigh_positions(logs[key, part], top[part], token[columns[key], part], weight[h, key, part], crossed[part])
            settle(cross_position, crossed, key % STEP == STEP - 1 or key == keys - 1)
        total[:], cross[:], best[:] = 0.0, 0.0, 0.0
        share[:] = 0.0
        for u in range(size):
            add(share, token[u])
            raise_to(best, token[u])
            _add_logs(token[u], truth[h, u], crossed, lost)
            done = u % STEP == STEP - 1 or u == size - 1
            settle(total, share, done)
            settle(cross, crossed, done)
        if lost.sum() > MATTERS:
            _exact_cross(logs, top, before, window, columns, truth[h], cross)
        for b in range(width):
            share[b] = 1.0 / total[b]
        _compare(token, share, truth[h], best, facts[h, 4], found[h])
        for b in range(width):
            found[h, 0, b], found[h, 1, b] = np.log(total[b]), top[b]
            found[h, 2, b], found[h, 3, b] = cross[b], cross_position[b]


@numba.njit(fastmath=FAST, error_model="numpy", forceinline=True)
def _exact_cross(logs, top, before, window, columns, truth, cross):  # type: ignore[no-untyped-def]
    """[B] attention times log weights of types, in float64: where float32 lost a weight that matters."""
    keys, width = logs.shape
    exact = np.zeros(truth.shape)
    for key in range(keys):
        first, last = stretch(key, before, window, width)
        for b in range(first, last):
            exact[columns[key], b] += np.exp(np.float64(logs[key, b]) - top[b])
    cross[:] = 0.0
    for u in range(len(truth)):
        for b in range(width):
            if truth[u, b] > 0.0:
                cross[b] += truth[u, b] * np.log(exact[u, b])
