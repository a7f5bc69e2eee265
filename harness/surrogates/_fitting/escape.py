"""Escape: how often a model leaves its context, and where to, after each query token.

A chain on its context gives 0 to every other token, and a model does not. With an escape, a surrogate gives 1 - e(i) of
its mass to the context and e(i) to other tokens by o(. | i), i the query; both are read off training texts.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy import sparse
from scipy.special import xlog1py, xlogy

from harness.core.seeds import derive_seed
from harness.data.texts import FloatArray, Text
from harness.surrogates._fitting.chain_walk import Leaving
from harness.surrogates._fitting.folds import keep_back
from harness.surrogates.observations import NextTokenObservations

SHRINKAGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FLOOR = 0.01  # mass that every training token has outside, so that none is impossible


class Escape:
    """e(i) and o(j | i): the mean of what the model gave outside the context after query i, shrunk to that of all.

    The shrinkage is the weight, in observations, of the mean over all queries; it is chosen on training prompts that
    are kept back. Only tokens of training texts can be escaped to.

    Args:
        seed: of the inner split.
    """

    vocab_size: int
    shrinkage_: float
    rate_: FloatArray

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, observations: NextTokenObservations) -> Self:
        """Learn from training texts with `in_context_mass` and `outside`."""
        self.shrinkage_ = self._choose(observations)
        return self._learn(observations, self.shrinkage_)

    def _learn(self, observations: NextTokenObservations, shrinkage: float) -> Self:
        size = self.vocab_size = observations.vocab_size
        queries = np.concatenate([t.types[t.query] for t in observations.texts])
        left = np.maximum(1.0 - np.concatenate(list(observations.in_context_mass)), 0.0)  # up to round-off
        outside = sparse.csr_array(sparse.vstack(list(observations.outside)))
        asks = sparse.csr_array((np.ones(len(queries)), (queries, np.arange(len(queries)))), shape=(size, len(queries)))
        self._times = np.bincount(queries, minlength=size).astype(float)
        mean = float(left.mean())
        total = np.bincount(queries, weights=left, minlength=size)
        self.rate_ = (total + shrinkage * mean) / (self._times + shrinkage)
        overall = np.asarray(outside.sum(axis=0)).ravel().astype(float)
        known = np.zeros(size)
        known[np.unique(np.concatenate([t.tokens for t in observations.texts]))] = FLOOR
        overall = (overall + FLOOR) * (known > 0)
        self._overall = shrinkage * mean * overall / overall.sum()
        self._outside = sparse.csr_array(asks @ outside)
        self._cache: dict[int, FloatArray] = {}
        return self

    def where(self, query: int) -> FloatArray:
        """[K] o(. | query), not normalised, before the context is taken out."""
        if query not in self._cache:
            row = self._overall.copy()
            stored = slice(self._outside.indptr[query], self._outside.indptr[query + 1])
            row[self._outside.indices[stored]] += self._outside.data[stored]
            row[self._overall == 0] = 0.0
            self._cache[query] = row
        return self._cache[query]

    def mix(self, inside: FloatArray, counts: FloatArray, query: int) -> FloatArray:
        """Add the escape to a distribution over the context: [K].

        Args:
            inside: [K], 0 outside the context.
            counts: [K] of the context.
            query: local id of the last token.
        """
        outside = np.where(counts > 0, 0.0, self.where(query))
        total = outside.sum()
        if total == 0.0:
            return inside
        rate = self.rate_[query]
        mixed: FloatArray = (1.0 - rate) * inside + (rate / total) * outside
        return mixed

    def leaving(self) -> Leaving:
        """The same as arrays, for compiled loops."""
        return Leaving(self.rate_, self._overall, self._outside)

    def rates(self, text: Text) -> FloatArray:
        """[n] e(i) along a text."""
        found: FloatArray = self.rate_[text.types[text.query]]
        return found

    def _choose(self, observations: NextTokenObservations) -> float:
        parts = keep_back(observations, derive_seed(self.seed, "escape"))
        if parts is None:
            return SHRINKAGES[-1]
        inner, outer = parts
        losses = []
        for shrinkage in SHRINKAGES:
            self._learn(inner, shrinkage)
            losses.append(sum(self._loss(outer, index) for index in range(len(outer.texts))))
        return SHRINKAGES[int(np.argmin(losses))]

    def _loss(self, observations: NextTokenObservations, index: int) -> float:
        """Cross-entropy of staying, leaving and where to, over one text; tokens it cannot reach are left out."""
        text, inside = observations.texts[index], observations.in_context_mass[index]
        outside, rate = observations.outside[index], self.rates(text)
        # a model that never leaves has rate 0, and nothing of it is outside
        loss = -float((xlog1py(inside, -rate) + xlogy(np.maximum(1.0 - inside, 0.0), rate)).sum())
        for row, query in enumerate(text.types[text.query]):
            where = self.where(int(query))
            stored = slice(outside.indptr[row], outside.indptr[row + 1])
            tokens, mass = outside.indices[stored], outside.data[stored]
            reached = where[tokens] > 0
            total = where.sum() - where[text.types[text.counts[row] > 0]].sum()
            if reached.any() and total > 0:
                loss -= float(mass[reached] @ np.log(where[tokens[reached]] / total))
        return loss
