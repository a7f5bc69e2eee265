"""Kernels on sequences whose contexts are their prefixes: what follows, which pairs occur, what joins them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel
from ccmc._data.types import BoolArray, FloatArray, IntArray


@kernel
def following_counts(tokens: IntArray, offsets: IntArray, start: int, window: int, vocab_size: int) -> FloatArray:
    """For each position that ends a prefix of length >= start, how often the next token is in it; -1 elsewhere."""
    counts = np.zeros(vocab_size)
    found = np.full(tokens.shape[0], -1.0)
    for s in range(offsets.shape[0] - 1):
        first, last = offsets[s], offsets[s + 1]
        for p in range(first, last - 1):
            counts[tokens[p]] += 1.0
            if p - first >= window:
                counts[tokens[p - window]] -= 1.0
            if p - first + 1 >= start:
                found[p] = counts[tokens[p + 1]]
        for p in range(first, last):
            counts[tokens[p]] = 0.0
    return found


@kernel
def first_and_last(
    tokens: NDArray[np.int32], offsets: IntArray, kept: BoolArray, first: IntArray, last: IntArray, seen: BoolArray
) -> None:
    """first[s, k] = position of token k's first occurrence in sequence s, last[s, q] = last kept position of query q.

    seen[q, k] = whether k is in a kept context of q.
    """
    for s in range(offsets.shape[0] - 1):
        for p in range(offsets[s + 1] - 1, offsets[s] - 1, -1):
            first[s, tokens[p]] = p
            if kept[p] and last[s, tokens[p]] < 0:
                last[s, tokens[p]] = p
        for q in range(seen.shape[0]):
            for k in range(seen.shape[0]):
                if first[s, k] <= last[s, q]:
                    seen[q, k] = True


@kernel
def join_prefixes(
    first: IntArray,
    last: IntArray,
    ptr: IntArray,
    token: IntArray,
    component: IntArray,
    components: IntArray,
) -> None:
    """Components of each query's tokens: the contexts of one sequence are nested, so they are joined by its largest."""
    for q in range(ptr.shape[0] - 1):
        mine = token[ptr[q] : ptr[q + 1]]
        label = np.arange(mine.shape[0])
        for s in range(first.shape[0]):
            lowest = mine.shape[0]
            for c in range(mine.shape[0]):
                if first[s, mine[c]] <= last[s, q]:
                    lowest = min(lowest, label[c])
            for c in range(mine.shape[0]):
                if first[s, mine[c]] <= last[s, q] and label[c] != lowest:
                    old = label[c]
                    for d in range(mine.shape[0]):
                        if label[d] == old:
                            label[d] = lowest
        # A component bears the number of its smallest token; count those up.
        number = np.empty(mine.shape[0], np.int64)
        found = 0
        for c in range(mine.shape[0]):
            if label[c] == c:
                number[c] = found
                found += 1
            component[ptr[q] + c] = number[label[c]]
        components[q] = found


@kernel
def strongly_connected(
    tokens: NDArray[np.int32],
    offsets: IntArray,
    order: IntArray,
    query_ptr: IntArray,
    first: IntArray,
    ptr: IntArray,
    token: IntArray,
    component: IntArray,
) -> bool:
    """Whether each component is strongly connected under "a token of a prefix points to the one that followed".

    order [n] lists the kept positions by query. Of sequence s it is enough to know the earliest occurrence among the
    tokens reached by arrows from a component's first token, and the last prefix that a token reached backwards won.
    """
    sequences, vocab_size = first.shape
    sequence = np.empty(tokens.shape[0], np.int32)
    for s in range(sequences):
        sequence[offsets[s] : offsets[s + 1]] = s
    forward, backward = np.empty(vocab_size, np.bool_), np.empty(vocab_size, np.bool_)
    earliest, latest = np.empty(sequences, np.int64), np.empty(sequences, np.int64)
    for q in range(ptr.shape[0] - 1):
        mine = token[ptr[q] : ptr[q + 1]]
        forward[:] = False
        backward[:] = False
        earliest[:] = np.iinfo(np.int64).max
        latest[:] = -1
        started = 0
        for c in range(mine.shape[0]):
            if component[ptr[q] + c] == started:
                started += 1
                forward[mine[c]] = backward[mine[c]] = True
                for s in range(sequences):
                    earliest[s] = min(earliest[s], first[s, mine[c]])
        reached = 2 * started
        changed = True
        while changed and reached < 2 * mine.shape[0]:
            changed = False
            for o in range(query_ptr[q + 1] - 1, query_ptr[q] - 1, -1):
                p = order[o]
                follower, at = tokens[p + 1], sequence[p]
                if p > latest[at] and backward[follower]:
                    latest[at] = p
                    for c in range(mine.shape[0]):
                        if not backward[mine[c]] and first[at, mine[c]] <= p:
                            backward[mine[c]] = True
                            reached += 1
                            changed = True
                if earliest[at] <= p and not forward[follower]:
                    forward[follower] = True
                    reached += 1
                    changed = True
                    for s in range(sequences):
                        earliest[s] = min(earliest[s], first[s, follower])
                if reached == 2 * mine.shape[0]:
                    break
        if reached < 2 * mine.shape[0]:
            return False
    return True
