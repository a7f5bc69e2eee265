"""A plain Markov chain fitted to a model's distributions: what `bigram` and `bigram-restricted` share."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy import sparse

from harness.core.seeds import derive_seed
from harness.data.texts import FloatArray, Text
from harness.surrogates._fitting.folds import keep_back
from harness.surrogates.base import NextTokenSurrogate
from harness.surrogates.observations import NextTokenObservations

SHRINKAGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FLOOR = 0.01  # mass that every local token has, so that none is impossible


class MarkovChain(NextTokenSurrogate):
    """p(j | i): the mean of the model's next-token distributions after query i, shrunk to that of all queries.

    The shrinkage is the weight, in observations, of the mean over all queries; it is chosen on training prompts that
    are kept back, by the cross-entropy within their contexts. What the model gives outside the context counts as well
    where the observations hold it.

    Args:
        seed: of the inner split.

    Attributes:
        shrinkage_: the weight that was chosen.
        sums_: [K, K] (CSR) what the model gave to each token after each query, summed over the training texts.
        prior_: [K] the mean over all queries, times the shrinkage: P[i, j] is proportional to prior_[j] + sums_[i, j].
    """

    shrinkage_: float
    sums_: sparse.csr_array
    prior_: FloatArray

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, observations: NextTokenObservations) -> Self:
        self.shrinkage_ = self._choose(observations)
        return self._learn(observations, self.shrinkage_)

    def _learn(self, observations: NextTokenObservations, shrinkage: float) -> Self:
        size = self.vocab_size_ = observations.vocab_size
        total = sparse.csr_array((size, size))
        for index, (text, target) in enumerate(zip(observations.texts, observations.targets, strict=True)):
            mass = observations.in_context_mass[index][:, None] if observations.in_context_mass else 1.0
            row, column = np.nonzero(text.counts)
            given = (target * mass)[row, column]
            inside = sparse.csr_array((given, (row, text.types[column])), shape=(len(text), size))
            given_all = inside + observations.outside[index] if observations.outside else inside
            ask = text.types[text.query], np.arange(len(text))
            asks = sparse.csr_array((np.ones(len(text)), ask), shape=(size, len(text)))
            total = total + asks @ given_all
        self.sums_ = sparse.csr_array(total)
        overall = np.asarray(self.sums_.sum(axis=0)).ravel() + FLOOR
        self.prior_ = shrinkage * overall / overall.sum()
        self._cache: dict[int, FloatArray] = {}
        self._known = np.zeros(size, dtype=bool)
        self._known[np.unique(np.concatenate([text.tokens for text in observations.texts]))] = True
        return self

    def row(self, query: int) -> FloatArray:
        """[K] p(. | query)."""
        if query not in self._cache:
            row = self.prior_.copy()
            stored = slice(self.sums_.indptr[query], self.sums_.indptr[query + 1])
            row[self.sums_.indices[stored]] += self.sums_.data[stored]
            self._cache[query] = row / row.sum()
        return self._cache[query]

    def _choose(self, observations: NextTokenObservations) -> float:
        parts = keep_back(observations, derive_seed(self.seed, "bigram"))
        if parts is None:
            return SHRINKAGES[-1]
        inner, outer = parts
        losses = []
        for shrinkage in SHRINKAGES:
            self._learn(inner, shrinkage)
            loss = 0.0
            for text, target in zip(outer.texts, outer.targets, strict=True):
                held = target > 0
                loss -= float(target[held] @ np.log(self.predict(text)[0][held]))
            losses.append(loss)
        return SHRINKAGES[int(np.argmin(losses))]

    def predict(self, text: Text) -> FloatArray:
        rows = np.stack([self.row(int(query))[text.types] for query in text.types])[text.query]
        inside = np.where(text.counts > 0, rows, 0.0)
        restricted: FloatArray = inside / inside.sum(axis=1, keepdims=True)
        return restricted[None]
