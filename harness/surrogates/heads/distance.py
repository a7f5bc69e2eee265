"""`distance`: a profile over distances alone, the same for all tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
from scipy import sparse

from ccmc import Contexts, fit_pairs
from harness.attention.blocks import Block, View
from harness.attention.log_weights import NO_VALUES, LogWeights, on
from harness.attention.loop_terms import LoopTerms
from harness.core.registry import register
from harness.data.texts import FloatArray, Text
from harness.surrogates._fitting.buckets import BUCKETS, bucket_table, profile_of
from harness.surrogates._fitting.sink_fit import fit_level
from harness.surrogates.base import HeadSurrogate
from harness.surrogates.observations import HeadObservations


@register.surrogate(
    "distance",
    of="heads",
    sees=("distance",),
    parameters="24",
    rung=10,
    default=True,
    about="a profile over distances alone, the same for all tokens",
    cost="seconds",
    source="this project",
)
class Distance(HeadSurrogate):
    """Position-level weights exp(b[bucket of the distance]), b by maximum likelihood per head.

    One query and the buckets as its tokens make this a CCMC as well: the context of a query position is the number of
    key positions in each bucket, so the same fit does it. A ridge of one observation keeps empty buckets in place.
    """

    profile_: FloatArray
    sink_: FloatArray | None = None
    """[H] log weight of the first position."""

    def fit(self, observations: HeadObservations) -> Self:
        counts = np.concatenate([_bucket_counts(text) for text in observations.texts])
        rows_, weight = np.unique(counts, axis=0, return_counts=True)
        # one query, number 0, and the D buckets as keys; the D x D shape is what the pairwise fit expects
        contexts = Contexts(sparse.csr_array(rows_), np.zeros(len(rows_), dtype=np.int64))
        used = contexts.pairs().indices
        wins = np.sum(observations.distance_mass, axis=0)[:, used]
        fit = fit_pairs(contexts, wins, np.zeros_like(wins), ridge=1.0, tol=1e-7, weight=weight.astype(float))
        self.profile_ = np.zeros((observations.heads, BUCKETS))
        self.profile_[:, used] = fit.delta
        if observations.sink_odds:
            top = self.profile_.max(axis=1, keepdims=True)
            total = np.log(np.exp(self.profile_ - top) @ counts.T) + top
            self.sink_ = fit_level(observations.sink_odds, total)
        return self

    def loop_terms(self) -> LoopTerms:
        sink: Any = {} if self.sink_ is None else {"sink": "level", "level": self.sink_}
        return LoopTerms(profile=partial(profile_of, self.profile_), **sink)

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        profile = on(view, profile_of(self.profile_, view.length))
        level = None if self.sink_ is None else on(view, self.sink_)[:, None]

        def of(block: Block) -> LogWeights:
            sink = None if level is None else level[block.heads].expand(-1, len(block.queries))
            return LogWeights(NO_VALUES, by_token=False, profile=profile[block.heads], sink=sink)

        return of


def _bucket_counts(text: Text) -> FloatArray:
    """[n, D] how many key positions of each query's context stand in each bucket."""
    seen = text.seen
    table = np.zeros((len(text.tokens), BUCKETS))
    table[np.arange(1, len(table)), bucket_table(len(table))[: len(table) - 1]] = 1.0
    counts: FloatArray = np.cumsum(table, axis=0)[seen]
    return counts
