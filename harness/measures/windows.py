"""Distances of the settled parts of continuations, for scores by their energy form (`stats/proper.py`).

Both distances are of negative type: weighted total variation is an L1 distance, and the Jaccard similarity of sets is a
positive definite kernel. A continuation of fewer than two tokens has an empty window. It is an outcome like any other,
and scores that left it out would not be proper: its shares are all 0, and its winner set is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.measures.sequences import Tokens, as_tokens, trailing_window
from harness.measures.winners import winner_set

Floats = NDArray[np.float64]


def inverse_document_frequency(continuations: Iterable[ArrayLike]) -> dict[int, float]:
    """How telling each token is: the log of how few of the continuations hold it.

    Args:
        continuations: [T] token ids each, of training prompts; at least one.

    Returns:
        Token -> log((N + 1) / (n + 1)), n of N continuations holding it; 0 for one that all hold. Distances give a
        token that is not there the weight of one that none hold, log(N + 1), under the key -1.

    Raises:
        ValueError: no continuations, or no token ids.

    Source:
        Sparck Jones, "A statistical interpretation of term specificity and its application in retrieval", 1972.
    """
    held: dict[int, int] = {}
    total = 0
    for continuation in continuations:
        total += 1
        for token in np.unique(as_tokens(continuation, "continuation")).tolist():
            held[token] = held.get(token, 0) + 1
    if total == 0:
        raise ValueError("document frequencies need at least one continuation")
    return {-1: float(np.log(total + 1))} | {t: float(np.log((total + 1) / (n + 1))) for t, n in sorted(held.items())}


def window_distances(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], weights: Mapping[int, float] | ArrayLike
) -> Floats:
    """Weighted total variation of trailing windows, sum over tokens of w |p - q| / (2 max w).

    Args:
        a, b: continuations, token ids [T] each; the last min(128, floor(T / 2)) tokens of each count.
        weights: of tokens, not negative: token -> weight, or an array with one for each id. A token without a weight
            gets the largest one.

    Returns:
        float64 [len(a), len(b)] in [0, 1].

    Raises:
        ValueError: no weights, or one that is negative or not finite (its token is named), or all are 0.
    """
    windows = [trailing_window(one) for one in (*a, *b)]
    types = np.unique(np.concatenate(windows)) if windows else np.zeros(0, dtype=np.int64)
    weight = _weights(types, weights)
    shares = np.zeros((len(windows), types.size))
    for row, window in zip(shares, windows, strict=True):
        if window.size:
            row += np.bincount(np.searchsorted(types, window), minlength=types.size) / window.size
    shares *= weight / 2
    left, right = shares[: len(a)], shares[len(a) :]
    distances = [np.abs(right - row).sum(axis=1) for row in left]
    return np.array(distances, dtype=np.float64).reshape(len(a), len(b))


def winner_distances(a: Sequence[ArrayLike], b: Sequence[ArrayLike], share: float = 0.9) -> Floats:
    """Jaccard distance of winner sets, 1 - |A and B| / |A or B|; 0 for two empty sets.

    Args:
        a, b: continuations, token ids [T] each.
        share: of the trailing window that a winner set covers, as in `winners.winner_set`.

    Returns:
        float64 [len(a), len(b)] in [0, 1].

    Raises:
        ValueError: a share outside (0, 1].

    Source:
        Bouchard, Jousselme and Dore, "A proof for the positive definiteness of the Jaccard index matrix", 2013.
    """
    sets = [winner_set(one, share) for one in (*a, *b)]
    types = np.unique(np.concatenate(sets)) if sets else np.zeros(0, dtype=np.int64)
    inside = np.zeros((len(sets), types.size))
    for row, one in zip(inside, sets, strict=True):
        row[np.searchsorted(types, one)] = 1.0
    left, right = inside[: len(a)], inside[len(a) :]
    common = left @ right.T
    either = left.sum(axis=1)[:, None] + right.sum(axis=1)[None, :] - common
    distances: Floats = np.where(either > 0, 1 - common / np.maximum(either, 1.0), 0.0)
    return distances


def _weights(types: Tokens, weights: Mapping[int, float] | ArrayLike) -> Floats:
    """[types] the weight of each token over the largest of all."""
    if isinstance(weights, Mapping):
        known = np.array(sorted(weights), dtype=np.int64)
        values = np.array([weights[int(token)] for token in known], dtype=np.float64)
    else:
        values = np.asarray(weights, dtype=np.float64)
        known = np.arange(values.size, dtype=np.int64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError("weights of tokens must be one number for each, and at least one")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if wrong.size:
        raise ValueError(f"the weight of token {known[wrong[0]]} is {values[wrong[0]]}; it must be finite, at least 0")
    most = float(values.max())
    if most == 0:
        raise ValueError("all weights of tokens are 0: no window differs from another")
    place = np.minimum(np.searchsorted(known, types), known.size - 1)
    found: Floats = np.where(known[place] == types, values[place], most) / most
    return found
