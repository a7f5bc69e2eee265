"""The smoothed bigram of texts, written out as a dense matrix from its definition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def dense_bigram(texts: Sequence[np.ndarray], size: int) -> np.ndarray:
    """[V, V] P0 by Witten and Bell; the unigram where nothing followed.

    Args:
        texts: sequences of tokens; V: size of the vocabulary.
    """
    tokens = [int(token) for text in texts for token in text]
    if not tokens:
        return np.full((size, size), 1 / size)
    once = sum(tokens.count(token) == 1 for token in range(size))
    share = max(once, 1) / len(tokens)
    q = np.array([(1 - share) * tokens.count(token) / len(tokens) + share / size for token in range(size)])
    times = np.zeros((size, size))
    for text in texts:
        for query, token in pairwise(text):
            times[query, token] += 1
    found = np.tile(q, (size, 1))
    for i in range(size):
        followed, different = times[i].sum(), (times[i] > 0).sum()
        if followed:
            found[i] = (times[i] + different * q) / (followed + different)
    return found
