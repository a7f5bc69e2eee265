"""`distance`: a profile over distances alone, the same for all tokens."""

from __future__ import annotations

from functools import cache
from typing import Self

import numpy as np
from scipy import sparse

from ccmc import Contexts, fit_pairs
from harness.surrogates.base import FloatArray, IntArray, Observations, Surrogate
from harness.texts import Text

_EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
BUCKETS = len(_EDGES) + 1


@cache
def _bucket_table(length: int) -> IntArray:
    table: IntArray = np.searchsorted(_EDGES, np.arange(length), side="right").astype(np.int64)
    return table


def bucket_matrix(text: Text) -> IntArray:
    """[n, T - first] the distance bucket of each (query position, key position); of future keys, bucket 0."""
    keys = np.arange(text.first, len(text.tokens))
    buckets: IntArray = _bucket_table(len(text.tokens))[np.maximum(text.positions[:, None] - keys[None, :], 0)]
    return buckets


def distance_mass(text: Text, rows: FloatArray) -> FloatArray:
    """Sum attention rows [H, n, T - first] over the pairs of positions in each distance bucket: [H, D]."""
    flat = bucket_matrix(text).ravel()
    return np.stack([np.bincount(flat, weights=row.ravel(), minlength=BUCKETS) for row in rows])


class Distance(Surrogate):
    """Position-level weights exp(b[bucket of the distance]), b by maximum likelihood per head.

    One query and the buckets as its tokens make this a CCMC as well: the context of a query position is the number of
    key positions in each bucket, so the same fit does it. A ridge of one observation keeps empty buckets in place.
    """

    name = "distance"
    profile_: FloatArray

    def fit(self, observations: Observations) -> Self:
        counts = []
        for text in observations.texts:
            table = np.zeros((len(text), BUCKETS))
            buckets = bucket_matrix(text)
            rows, keys = np.nonzero(text.visible)
            np.add.at(table, (rows, buckets[rows, keys]), 1.0)
            counts.append(table)
        rows_, weight = np.unique(np.concatenate(counts), axis=0, return_counts=True)
        # one query, number 0, asks the D buckets; the D x D shape is what the pairwise fit expects
        contexts = Contexts(sparse.csr_array(rows_), np.zeros(len(rows_), dtype=np.int64))
        used = contexts.pairs().indices
        wins = np.sum(observations.distance_mass, axis=0)[:, used]
        fit = fit_pairs(contexts, wins, np.zeros_like(wins), ridge=1.0, tol=1e-7, weight=weight.astype(float))
        self.profile_ = np.zeros((observations.heads, BUCKETS))
        self.profile_[:, used] = fit.delta
        return self

    def predict(self, text: Text) -> FloatArray:
        score = self.profile_[:, bucket_matrix(text)]
        return text.per_token(position_rows(score, text))


def position_rows(score: FloatArray, text: Text) -> FloatArray:
    """Softmax of scores [H, n, T - first] over the key positions that a query sees."""
    score = np.where(text.visible, score, -np.inf)
    weight: FloatArray = np.exp(score - score.max(axis=-1, keepdims=True))
    weight /= weight.sum(axis=-1, keepdims=True)
    return weight
