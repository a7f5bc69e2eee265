"""Kernels of a walk: utilities of the types of the context, the weight of everything else, a draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.base_kernels import log_of_pair
from ccmc._logit.state import BASE_BY_MATCH, UNIGRAM, follow, forget, value
from ccmc._sim.random import next_word, seed_stream, unit

Int32Array = NDArray[np.int32]
_TRIES = 200


@kernel
def draw(state: NDArray[np.uint64]) -> float:
    """A number in [0, 1) from a stream."""
    word, state[0], state[1], state[2], state[3] = next_word(state[0], state[1], state[2], state[3])
    return unit(word)


@kernel
def from_outside(
    state: NDArray[np.uint64], query: int, a: float, total: float, place: IntArray, row: IntArray, tokens: Int32Array,
    log_p: FloatArray, log_scale: FloatArray, log_unigram: FloatArray, frequent: IntArray, tail: FloatArray,
) -> int:  # fmt: skip
    """A token outside the context, in proportion to P0^a: drawn from all tokens until one is new.

    Args:
        total: sum of P0^a over all tokens.
        place: [V] column of each token of the context, -1 outside.
        frequent, tail: [V] tokens by falling unigram, and running sums of unigram^a in this order.
    """
    stored = row[query]
    top = tokens.shape[1] if stored >= 0 else 0
    for _ in range(_TRIES):
        left = draw(state) * total
        found = -1
        for k in range(top):
            left -= np.exp(a * log_p[stored, k])
            if left < 0.0:
                found = tokens[stored, k]
                break
        if found < 0:  # the tail: drawn among all tokens, until it is none of the row's own
            for _again in range(_TRIES):
                found = frequent[min(np.searchsorted(tail, draw(state) * tail[-1], side="right"), len(tail) - 1)]
                own = False
                for k in range(top):
                    own = own or tokens[stored, k] == found
                if not own:
                    break
        if place[found] < 0:
            return found
    # almost all of P0 lies in the context: one pass over the vocabulary
    whole = 0.0
    for token in range(len(row)):
        if place[token] < 0:
            whole += np.exp(a * log_of_pair(row, tokens, log_p, log_scale, log_unigram, query, token))
    left = draw(state) * whole
    found = -1
    for token in range(len(row)):
        if place[token] < 0:
            found = token
            left -= np.exp(a * log_of_pair(row, tokens, log_p, log_scale, log_unigram, query, token))
            if left < 0.0:
                break
    return found


@kernel
def best_outside(
    query: int, place: IntArray, row: IntArray, tokens: Int32Array, log_p: FloatArray, log_scale: FloatArray,
    log_unigram: FloatArray, frequent: IntArray,
) -> tuple[int, float]:  # fmt: skip
    """The likeliest token of P0 outside the context, and its log P0; -1 where the context holds all."""
    stored = row[query]
    found, best = -1, -np.inf
    if stored >= 0:
        for k in range(tokens.shape[1]):
            if place[tokens[stored, k]] < 0:
                found, best = int(tokens[stored, k]), log_p[stored, k]
                break
        if log_scale[stored] == -np.inf:
            return found, best
    for token in frequent:
        if place[token] < 0:
            own = False
            if stored >= 0:
                for k in range(tokens.shape[1]):
                    own = own or tokens[stored, k] == token
            if not own:
                log = log_unigram[token] + (log_scale[stored] if stored >= 0 else 0.0)
                return (token, log) if log > best else (found, best)
    return found, best


@summing_kernel
def logits_of_types(
    row: int, types: IntArray, many: int, hidden: NDArray[np.float32], keys: NDArray[np.float32], bias: FloatArray,
    log_norm: FloatArray, cap: float, out: FloatArray,
) -> None:  # fmt: skip
    """log P0 of the types of the context, from factors."""
    for c in range(many):
        total = np.float32(0.0)
        for d in range(hidden.shape[1]):
            total += hidden[row, d] * keys[types[c], d]
        logit = float(total) + bias[types[c]]
        if cap > 0.0:
            logit = cap * np.tanh(logit / cap)
        out[c] = logit - log_norm[row]


@kernel
def base_of_types(
    query: int, types: IntArray, many: int, place: IntArray, row: IntArray, tokens: Int32Array, log_p: FloatArray,
    log_scale: FloatArray, log_unigram: FloatArray, out: FloatArray,
) -> None:  # fmt: skip
    """log P0 of the types of the context, in O(types + top)."""
    stored = row[query]
    shift = log_scale[stored] if stored >= 0 else 0.0
    for c in range(many):
        out[c] = log_unigram[types[c]] + shift
    if stored >= 0:
        for k in range(tokens.shape[1]):
            c = place[tokens[stored, k]]
            if c >= 0:
                out[c] = log_p[stored, k]


@kernel
def shifted(kind: int, token: int, m: FloatArray, followed: FloatArray, total: FloatArray) -> float:
    """The offset of a type: 0, log of its count, or log of how often it followed the query."""
    if kind == 0:
        return 0.0
    if kind == 1 or total[0] == 0.0:
        return float(np.log(m[token]))
    return float(np.log(followed[0, token]))


@kernel
def walk(
    prompt: IntArray, key: NDArray[np.uint64], name: NDArray[np.uint64], kinds: IntArray, orders: IntArray,
    slots: IntArray, levels: IntArray,
    w: FloatArray, heat: float, flags: IntArray, row: IntArray, tokens: Int32Array, log_p: FloatArray,
    log_scale: FloatArray, log_unigram: FloatArray, sums: FloatArray, frequent: IntArray, tail: FloatArray,
    hidden: NDArray[np.float32], keys: NDArray[np.float32], bias: FloatArray, log_norm: FloatArray, cap: float,
    out: IntArray,
) -> None:  # fmt: skip
    """Continue one prompt.

    Args:
        prompt: [L] tokens.
        key, name: [4] of the seed and [3] of the prompt: what the path's random stream is made of.
        kinds, orders, slots, levels: of `names.Columns`; with an offset, level 0 is 1.
        w: [1 + D] weights, already divided by the temperature, as offsets are by `heat`.
        flags: closed, greedy, offset.
        row ... log_unigram: of the base.
        sums: [R + 1] of P0^w[0].
        frequent, tail: as of `from_outside`.
        hidden ... cap: rows as logits, of width 0 where there are none.
        out: [steps].
    """
    closed, greedy, offset = flags[0] == 1, flags[1] == 1, flags[2]
    size, depth = len(prompt) + len(out), len(levels)
    place = np.full(len(row), -1, np.int64)
    types, local = np.empty(size, np.int64), np.empty(size + 1, np.int64)
    m, last, seen = np.zeros(size), np.zeros(size, np.int64), np.full(size, -1, np.int64)
    previous, length = np.empty(size, np.int64), np.zeros(size, np.int64)
    faded, followed, total = np.zeros((depth, size)), np.zeros((depth, size)), np.zeros(depth + 1)
    longest, touched, latest = np.zeros(size, np.int64), np.zeros(size, np.int64), np.full(depth, -1, np.int64)
    u, state = np.empty(size), np.empty(4, np.uint64)
    seed_stream(key, name, state)
    many = 0
    for n in range(1, size):
        token = prompt[n - 1] if n <= len(prompt) else out[n - 1 - len(prompt)]
        if place[token] < 0:
            place[token], types[many] = many, token
            many += 1
        j = place[token]
        local[n - 1] = j
        previous[n - 1], seen[j] = seen[j], n - 1
        for k in range(depth):
            faded[k, j] = faded[k, j] * np.exp(-float(n - 1 - last[j]) / float(levels[k])) + 1.0
        m[j] += 1.0
        last[j] = n - 1
        count = follow(local, n, previous, length, levels, followed, total, longest, latest, touched)
        if n >= len(prompt):
            top, within = -np.inf, 0.0
            if hidden.shape[1] > 0 and row[token] >= 0:
                logits_of_types(row[token], types, many, hidden, keys, bias, log_norm, cap, u)
            else:
                base_of_types(token, types, many, place, row, tokens, log_p, log_scale, log_unigram, u)
            for c in range(many):
                log_base = u[c]
                b = w[0] * log_base if w[0] != 0.0 else 0.0
                u[c] = b + heat * shifted(offset, c, m, followed, total)
                for d in range(len(kinds)):
                    if w[d + 1] != 0.0:
                        v = value(kinds[d], orders[d], slots[d], c, n, m, last, faded, followed, total, longest, latest)
                        if kinds[d] == UNIGRAM:
                            v *= log_unigram[types[c]]
                        elif kinds[d] == BASE_BY_MATCH and v > 0.0:
                            v *= log_base
                        u[c] += w[d + 1] * v
                within += np.exp(b)
                top = max(top, u[c])
            whole = sums[row[token] if row[token] >= 0 else len(sums) - 1]
            rest = 0.0 if closed or whole - within <= 1e-14 * whole else whole - within
            if greedy:
                chosen = int(types[np.argmax(u[:many])])
                if rest > 0.0:
                    other, log = best_outside(token, place, row, tokens, log_p, log_scale, log_unigram, frequent)
                    if other >= 0 and w[0] * log > top:
                        chosen = other
            else:
                if rest > 0.0:
                    top = max(top, np.log(rest))
                z = rest * np.exp(-top)
                for c in range(many):
                    u[c] = np.exp(u[c] - top)
                    z += u[c]
                left, chosen = draw(state) * z, -1
                for c in range(many):
                    left -= u[c]
                    if left < 0.0:
                        chosen = int(types[c])
                        break
                if chosen < 0 and rest > 0.0:
                    chosen = from_outside(
                        state, token, w[0], whole, place, row, tokens, log_p, log_scale, log_unigram, frequent, tail
                    )
                elif chosen < 0:
                    chosen = int(types[many - 1])
            out[n - len(prompt)] = chosen
        forget(touched, count, followed, longest)
