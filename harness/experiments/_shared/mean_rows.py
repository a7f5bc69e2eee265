"""The mean row of each query token: a null that knows the query and distances, and no key.

A mean over key tokens would be a chain itself. So rows of a query token are averaged by how far keys lie before it, in
buckets of distances: the mean attention per position that a bucket holds. The mean row of the head over all tokens
counts as a few more occurrences of each token, and stands for tokens that no training text holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness.attention.capture import FloatArray, IntArray
from harness.attention.loop_terms import LoopTerms, QueryProfile
from harness.surrogates._fitting.buckets import BUCKETS, bucket_table

OCCURRENCES = 4.0
"""As how many occurrences of a token the head's mean over all tokens counts."""
LEAST = 1e-9


class MeanRows:
    """Sums of attention of the heads of a layer, per query token and bucket of distances.

    Args:
        vocab_size: K.
        heads: H.
    """

    def __init__(self, vocab_size: int, heads: int) -> None:
        self.size = vocab_size
        self.mass = torch.zeros(heads, vocab_size * BUCKETS, dtype=torch.float64)
        self.places = torch.zeros(vocab_size * BUCKETS, dtype=torch.float64)
        self.queries = np.zeros(vocab_size)

    def add(
        self, tokens: IntArray, window: int | None, weight: torch.Tensor, low: int, start: int, heads: slice
    ) -> None:
        """Add rows of some queries of a text.

        Args:
            tokens: [T] local ids.
            window: positions that a query sees, itself included.
            weight: [H, L, B] attention without the first position, keys down, queries across.
            low, start: position of the first key and of the first query.
            heads: which heads these are.
        """
        keys, queries = weight.shape[1], weight.shape[2]
        at, place = np.arange(start, start + queries), np.arange(low, low + keys)
        distance = at[None] - place[:, None]  # [L, B]
        seen = (distance >= 0) & (distance < (len(tokens) if window is None else window))
        code = tokens[at][None] * BUCKETS + bucket_table(len(tokens))[np.maximum(distance, 0)]
        wanted = torch.as_tensor(code[seen])
        self.mass[heads].index_add_(1, wanted, weight[:, torch.as_tensor(seen)].double().cpu())
        if not heads.start:
            self.places.index_add_(0, wanted, torch.ones(len(wanted), dtype=torch.float64))
            np.add.at(self.queries, tokens[at], 1.0)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The logarithms of mean rows, [H, K + 1, D]: of each token, and last of the head over all tokens."""
        mass = self.mass.numpy().reshape(len(self.mass), self.size, BUCKETS)
        places = self.places.numpy().reshape(self.size, BUCKETS)
        queries = max(float(self.queries.sum()), 1.0)
        of_all, places_of_all = mass.sum(1) / queries, places.sum(0) / queries
        above = mass + OCCURRENCES * of_all[:, None]
        below = places + OCCURRENCES * places_of_all
        rates = np.concatenate(
            [above / np.maximum(below, LEAST), (of_all / np.maximum(places_of_all, LEAST))[:, None]], 1
        )
        # a bucket that no training text reaches goes on as the one before it
        reached = places_of_all > 0
        last = np.maximum.accumulate(np.where(reached, np.arange(BUCKETS), 0))
        return {"mean_rows": np.log(np.maximum(rates[:, :, last], LEAST)).astype(np.float32)}


def mean_row_terms(values: FloatArray) -> LoopTerms:
    """The terms of mean rows; nothing is said about the first position."""
    return LoopTerms(of_query=QueryProfile(values, bucket_table))
