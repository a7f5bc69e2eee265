"""`bigram`, `bigram-restricted`: a Markov chain with no context, as it is and restricted to the context."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy import sparse

from harness.core.registry import register
from harness.core.seeds import derive_seed
from harness.data.texts import Text
from harness.surrogates._fitting.ccmc_fit import inner_folds
from harness.surrogates._fitting.chain_walk import ChainTerms
from harness.surrogates.base import FloatArray, IntArray, Observations, Surrogate

SHRINKAGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FLOOR = 0.01  # mass that every local token has, so that none is impossible


@register.surrogate(
    "bigram",
    of="next-token",
    sees=("query",),
    parameters="K(K-1)",
    rollout=True,
    open=True,
    rung=30,
    about="a plain Markov chain over all tokens, with no context",
)
class Bigram(Surrogate):
    """p(j | i): the mean of the model's next-token distributions after query i, shrunk to that of all queries.

    The shrinkage is the weight, in observations, of the mean over all queries; it is chosen on training prompts that
    are kept back, by the cross-entropy within their contexts. What the model gives outside the context counts as well
    where the observations hold it.

    Args:
        seed: of the inner split.
    """

    open = True
    shrinkage_: float

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, observations: Observations) -> Self:
        self.shrinkage_ = self._choose(observations)
        return self._learn(observations, self.shrinkage_)

    def _learn(self, observations: Observations, shrinkage: float) -> Self:
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
        self._sums = sparse.csr_array(total)
        overall = np.asarray(self._sums.sum(axis=0)).ravel() + FLOOR
        self._prior = shrinkage * overall / overall.sum()
        self._cache: dict[int, FloatArray] = {}
        self._known = np.zeros(size, dtype=bool)
        self._known[np.unique(np.concatenate([text.tokens for text in observations.texts]))] = True
        return self

    def row(self, query: int) -> FloatArray:
        """[K] p(. | query)."""
        if query not in self._cache:
            row = self._prior.copy()
            stored = slice(self._sums.indptr[query], self._sums.indptr[query + 1])
            row[self._sums.indices[stored]] += self._sums.data[stored]
            self._cache[query] = row / row.sum()
        return self._cache[query]

    def _choose(self, observations: Observations) -> float:
        folds = inner_folds(observations.groups, 4, derive_seed(self.seed, "bigram"))
        if len(folds) < 2:
            return SHRINKAGES[-1]
        inner, outer = observations.part(set(observations.groups) - folds[0]), observations.part(folds[0])
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

    def leaving(self, text: Text) -> FloatArray:
        """[n] what it gives to tokens outside the context along a text."""
        rows = np.stack([self.row(int(query))[text.types] for query in text.types])[text.query]
        left: FloatArray = 1.0 - np.where(text.counts > 0, rows, 0.0).sum(axis=1)
        return left

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        # types that only held-out texts hold have a floor so that a context of them has a prediction, nothing more
        row = np.where(self._known | (counts > 0), self.row(int(history[-1])), 0.0)
        possible: FloatArray = row / row.sum()
        return possible


@register.surrogate(
    "bigram-restricted",
    of="next-token",
    sees=("counts", "query"),
    parameters="K(K-1)",
    rollout=True,
    rung=40,
    about="the plain Markov chain restricted to the context",
)
class BigramRestricted(Bigram):
    """The same chain, every distribution restricted to the tokens of the context and renormalised."""

    open = False

    def chain_terms(self, vocab_size: int) -> ChainTerms:
        # log(prior_j + sum_ij) = log prior_j + log(1 + sum_ij / prior_j)
        more = self._sums.copy()
        more.data = np.log1p(more.data / self._prior[more.indices])
        return ChainTerms.single(np.ones((len(self._prior), 1)), np.log(self._prior)[:, None], more, counted=False)

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        inside = np.where(counts > 0, self.row(int(types[history[-1]]))[types], 0.0)
        restricted: FloatArray = inside / inside.sum()
        return restricted
