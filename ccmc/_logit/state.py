"""Statistics of a context while it grows: what each token of it offers to the next choice.

Tokens of a text are numbered in the order in which they first occur, so that the types of the context after any number
of tokens are 0 .. d - 1. The state holds per type how often and when it occurred, and per position how long a suffix
that ends there equals the end of the context: the positions that hold the last token, found along their chain, make all
followers in O(occurrences of the last token) a step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray

# Kinds of statistics of a type j after n tokens; an order k goes with SHARE .. RECENT.
PRESENT, LOG_COUNT, RECENCY, MATCH, LOG_MATCH, SHARE, LOG_FOLLOWED, SHRUNK, LATEST, RECENT = range(10)
SUFFIX, LOG_SUFFIX, RECENCY_SQUARED, MATCH_SQUARED = range(10, 14)
UNIGRAM, BASE_BY_MATCH = 14, 15  # these read the base transitions, too
SIMILARITY = 16  # this one their embeddings: filled in by the caller
BASE_INSIDE = 17
GATE = 100  # a kind plus L times this: 0 unless the longest match has L tokens
ALONE = (PRESENT, LOG_COUNT, RECENCY, RECENT, RECENCY_SQUARED, UNIGRAM, SIMILARITY)
"""All others but BASE_INSIDE are 0 of types that never followed."""

Columns = NDArray[np.float32] | NDArray[np.float64]

SHRINKAGE = 2.0  # followers that a shrunk share adds to the total


@kernel
def follow(
    local: IntArray, n: int, previous: IntArray, length: IntArray, orders: IntArray, followed: FloatArray,
    total: FloatArray, longest: IntArray, latest: IntArray, touched: IntArray,
) -> int:  # fmt: skip
    """What followed the end of the context earlier, when its n-th token has just been added.

    Args:
        local: [T] the text; its first n tokens are the context.
        previous: [T] the last position before with the same token, -1 where there is none.
        length: [T] at positions with the last token but one, how long they matched it; rewritten for the last token.
        orders: [K] how many last tokens must match.
        followed: [K, U] gets the number of times that each type followed; rows of touched types only.
        total: [K + 1] gets their sums, and last the length of the longest match.
        longest: [U] gets the longest match that each type followed.
        latest: [K] gets the type that followed the latest match, -1 where there is none.
        touched: [U] gets the types that followed at all.

    Returns:
        How many types were touched.
    """
    count = 0
    total[:] = 0.0
    latest[:] = -1
    best = 0
    place = previous[n - 1]
    while place >= 0:  # downwards: what stands before a place is read before it is rewritten
        same = 1
        if place > 0 and n > 1 and local[place - 1] == local[n - 2]:
            same += length[place - 1]
        length[place] = same
        token = local[place + 1]
        if longest[token] == 0:
            touched[count] = token
            count += 1
        if same > longest[token]:
            longest[token] = same
        best = max(best, same)
        for k in range(len(orders)):
            if same >= orders[k]:
                followed[k, token] += 1.0
                total[k] += 1.0
                if latest[k] < 0:
                    latest[k] = token
        place = previous[place]
    length[n - 1] = 0
    total[-1] = best
    return count


@kernel
def forget(touched: IntArray, count: int, followed: FloatArray, longest: IntArray) -> None:
    """Clear what `follow` has written about types."""
    for index in range(count):
        token = touched[index]
        longest[token] = 0
        for k in range(len(followed)):
            followed[k, token] = 0.0


@kernel
def of_follower(
    kind: int, slot: int, token: int, followed: FloatArray, total: FloatArray, longest: IntArray, latest: IntArray,
    log_base: float,
) -> float:  # fmt: skip
    """A statistic that is 0 of all types that never followed the last token, of one that did."""
    if kind >= GATE:
        if total[-1] < kind // GATE:
            return 0.0
        kind = kind % GATE
    if kind == MATCH:
        return float(longest[token])
    if kind == LOG_MATCH:
        return float(np.log(1.0 + longest[token]))
    if kind == SHARE:
        return float(followed[slot, token] / total[slot]) if total[slot] > 0.0 else 0.0
    if kind == LOG_FOLLOWED:
        return float(np.log(1.0 + followed[slot, token]))
    if kind == SHRUNK:
        return float(followed[slot, token] / (total[slot] + SHRINKAGE))
    if kind == LATEST:
        return 1.0 if latest[slot] == token else 0.0
    if kind == MATCH_SQUARED:
        return float(np.log(1.0 + longest[token]) ** 2)
    if kind == BASE_BY_MATCH:
        return float(np.log(1.0 + longest[token]) * log_base)
    if longest[token] < total[-1]:  # SUFFIX and LOG_SUFFIX
        return 0.0
    return 1.0 if kind == SUFFIX else float(np.log(1.0 + longest[token]))


@kernel
def of_types(
    kind: int, order: int, n: int, log_m: FloatArray, last: IntArray, fading: FloatArray, log_unigram: FloatArray,
    log_whole: FloatArray, out: Columns,
) -> None:  # fmt: skip
    """A statistic that types have whether they followed or not, of all types of a context of n tokens.

    Args:
        kind, order: of the statistic.
        n: tokens of the context.
        log_m, last, fading: [U] log counts, last positions, and logs of fading counts when they occurred.
        log_unigram: [U].
        log_whole: logs of 1, 1, 2, 3, ...
        out: [types of the context].
    """
    for j in range(len(out)):
        if kind == PRESENT:
            out[j] = 1.0
        elif kind == LOG_COUNT:
            out[j] = log_m[j]
        elif kind == RECENCY:
            out[j] = log_whole[n - last[j]]
        elif kind == RECENCY_SQUARED:
            out[j] = log_whole[n - last[j]] ** 2
        elif kind == RECENT:  # log of the count in which an occurrence fades by 1/e within `order` tokens
            out[j] = fading[j] - float(n - 1 - last[j]) / float(order)
        elif kind == UNIGRAM:
            out[j] = log_unigram[j]
        else:  # SIMILARITY
            out[j] = 0.0


@kernel
def fill(
    local: IntArray, distinct: IntArray, start: int, kinds: IntArray, orders: IntArray, slots: IntArray,
    levels: IntArray, pairs: FloatArray, log_unigram: FloatArray, at: int, out: Columns, log_base: FloatArray,
) -> None:  # fmt: skip
    """The statistics of all contexts of a text, column by column, one entry a type of the context.

    Args:
        local: [T] types numbered by first occurrence.
        distinct: [T] types among the first t + 1 tokens.
        start: tokens of the first context.
        kinds, orders, slots: [D] of the columns; a slot is a place in `levels`.
        levels: [K] different orders.
        pairs: [U, U] log P0 of the types of the text after each of them.
        log_unigram: [U] log frequencies of the types.
        at: place of the first context's first candidate.
        out: [D, N] gets the statistics of contexts of start .. T - 1 tokens, context after context.
        log_base: [N] gets log P0.
    """
    size, types, depth = len(local), distinct[-1], len(levels)
    m, last, seen = np.zeros(types), np.zeros(types, np.int64), np.full(types, -1, np.int64)
    previous, length = np.empty(size, np.int64), np.zeros(size, np.int64)
    faded, log_faded, log_m = np.zeros((depth, types)), np.zeros((depth, types)), np.zeros(types)
    followed, total = np.zeros((depth, types)), np.zeros(depth + 1)
    longest, touched = np.zeros(types, np.int64), np.zeros(types, np.int64)
    latest = np.full(depth, -1, np.int64)
    log_whole = np.log(np.maximum(np.arange(size + 1), 1))
    for n in range(1, size):
        token = local[n - 1]
        previous[n - 1] = seen[token]
        seen[token] = n - 1
        for k in range(depth):
            passed = float(n - 1 - last[token])
            faded[k, token] = faded[k, token] * np.exp(-passed / float(levels[k])) + 1.0
            log_faded[k, token] = np.log(faded[k, token])
        m[token] += 1.0
        log_m[token] = log_whole[np.int64(m[token])]
        last[token] = n - 1
        count = follow(local, n, previous, length, levels, followed, total, longest, latest, touched)
        if n >= start:
            many, base = distinct[n - 1], pairs[token]
            for d in range(len(kinds)):
                own, slot = out[d][at : at + many], slots[d]
                if kinds[d] in ALONE:
                    of_types(kinds[d], orders[d], n, log_m, last, log_faded[slot], log_unigram, log_whole, own)
                    continue
                own[:] = 0.0
                if kinds[d] == BASE_INSIDE:
                    for j in range(many):
                        own[j] = base[j] if base[j] > -np.inf else 0.0
                    continue
                for index in range(count):
                    j = touched[index]
                    own[j] = of_follower(kinds[d], slot, j, followed, total, longest, latest, base[j])
            own_base = log_base[at : at + many]
            for j in range(many):
                own_base[j] = base[j]
            at += many
        forget(touched, count, followed, longest)
