"""Counting on one token sequence: the primitives that every measure of a trajectory shares."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Tokens = NDArray[np.int64]

# Token ids are stored as 4 bytes; the bound also keeps id * length inside an int64 for any length below 2^31.
MAX_TOKEN = 2**32 - 1
_CODES = 2**63 - 1


def as_tokens(tokens: ArrayLike, name: str = "tokens") -> Tokens:
    """Checks that something is a sequence of token ids.

    Args:
        tokens: [T] integers from 0 to 2^32 - 1; an empty sequence of any type will do.
        name: what to call it in an error.

    Returns:
        int64 [T].

    Raises:
        ValueError: not one-dimensional, not integers, or an id out of range (index and value are named).
    """
    array = np.asarray(tokens)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one sequence of token ids, got an array of shape {array.shape}")
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integer token ids, got {array.dtype}")
    ids = array.astype(np.int64, copy=False)
    # Seen as unsigned, a negative id is a huge one: one pass checks both ends.
    if ids.view(np.uint64).max() > MAX_TOKEN:
        index = int(np.flatnonzero((ids < 0) | (ids > MAX_TOKEN))[0])
        raise ValueError(f"{name}[{index}] is {array[index]}; token ids go from 0 to {MAX_TOKEN}")
    return ids


def ngram_counts(tokens: ArrayLike, n: int) -> NDArray[np.int64]:
    """How often each distinct n-gram occurs.

    Exact for any vocabulary and any n: n-grams are numbered, never hashed.

    Args:
        tokens: [T] token ids.
        n: size of the n-grams, at least 1.

    Returns:
        int64 [number of distinct n-grams], in lexicographic order of the n-grams; empty where T < n.

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"n-grams have at least one token, got n={n}")
    ids = as_tokens(tokens)
    total = ids.size - n + 1
    if total < 1:
        return np.zeros(0, dtype=np.int64)
    base = int(ids.max()) + 1
    codes, bound = ids[:total], base
    for k in range(1, n):
        if bound * base > _CODES:
            ids, base = renumbered(ids)
            codes, bound = renumbered(codes)
        codes = codes * base + ids[k : total + k]
        bound *= base
    codes = np.sort(codes)
    edges = np.ones(total + 1, dtype=np.bool_)
    np.not_equal(codes[1:], codes[:-1], out=edges[1:-1])
    (starts,) = edges.nonzero()
    return starts[1:] - starts[:-1]


def renumbered(codes: Tokens) -> tuple[Tokens, int]:
    """Numbers codes from 0 without gaps, keeping their order.

    Args:
        codes: [T] integers.

    Returns:
        int64 [T] the numbers, and how many distinct ones there are.
    """
    distinct, numbers = np.unique(codes, return_inverse=True)
    return numbers.astype(np.int64, copy=False), distinct.size


def return_gaps(tokens: ArrayLike) -> NDArray[np.int64]:
    """How many positions ago each token occurred last.

    Args:
        tokens: [T] token ids.

    Returns:
        int64 [T]; 0 where a token occurs for the first time.
    """
    ids = as_tokens(tokens)
    order = np.argsort(ids, kind="stable")
    by_token = ids[order]
    gaps = np.zeros(ids.size, dtype=np.int64)
    again = np.flatnonzero(by_token[1:] == by_token[:-1]) + 1
    gaps[order[again]] = order[again] - order[again - 1]
    return gaps


def occurrences(tokens: Tokens, values: Tokens, start: Tokens, stop: Tokens) -> NDArray[np.int64]:
    """How often each of some values occurs in a stretch of its own: values[k] in tokens[start[k]:stop[k]].

    Args:
        tokens: [T] token ids.
        values: [n] token ids.
        start: [n] first positions, 0 to T.
        stop: [n] one past the last positions, start to T.

    Returns:
        int64 [n].
    """
    # Sorted by (token, position), every stretch of one token is a run whose ends a binary search finds.
    base = tokens.size + 1
    keys = np.sort(tokens * base + np.arange(tokens.size))
    return np.searchsorted(keys, values * base + stop) - np.searchsorted(keys, values * base + start)


def members(tokens: Tokens, values: Tokens) -> NDArray[np.bool_]:
    """Which tokens are among some values.

    Args:
        tokens: [T] token ids.
        values: [n] token ids.

    Returns:
        bool [T].
    """
    if values.size == 0:
        return np.zeros(tokens.size, dtype=np.bool_)
    # Several times the speed of np.isin at the sizes of a continuation and its winner set.
    ordered = np.sort(values)
    places = np.minimum(np.searchsorted(ordered, tokens), values.size - 1)
    return np.asarray(ordered[places] == tokens, dtype=np.bool_)


def trailing_length(length: int) -> int:
    """Length of the trailing window of a continuation: min(128, floor(T / 2)) tokens."""
    return min(128, length // 2)


def trailing_window(continuation: ArrayLike) -> Tokens:
    """The last min(128, floor(T / 2)) tokens of a continuation: its settled part.

    Args:
        continuation: [T] token ids.

    Returns:
        int64 [min(128, T // 2)]; empty for fewer than two tokens.
    """
    tokens = as_tokens(continuation, "continuation")
    return tokens[tokens.size - trailing_length(tokens.size) :]
