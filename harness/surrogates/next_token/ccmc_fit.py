"""`ccmc-fit`: the chain of a language model by maximum likelihood, shrunk to `counts`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np

from ccmc import CCMC
from harness.core.registry import register
from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates._fitting.ccmc_fit import FlatPrior, PairFit
from harness.surrogates._fitting.chain_walk import ChainTerms
from harness.surrogates.base import Fact, NextTokenSurrogate, chain_rows
from harness.surrogates.observations import NextTokenObservations


@register.surrogate(
    "ccmc-fit",
    of="next-token",
    sees=("counts", "query"),
    parameters="K(K-1)",
    rollout=True,
    rung=90,
    default=True,
    about="the chain by maximum likelihood, shrunk to counts",
    cost="grows with the pairs of tokens that co-occur",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
class CCMCFit(PairFit, NextTokenSurrogate):
    """theta = delta, on the pairs that co-occur in training texts.

    Args:
        seed: of the inner split.
        folds: one of so many parts of the training prompts is kept back to choose the ridge.
        tol: of the fit.
    """

    def __init__(self, seed: int, folds: int = 4, tol: float = 1e-4) -> None:
        super().__init__(FlatPrior(), seed, folds, tol)

    def fit(self, observations: NextTokenObservations) -> Self:
        self.learn(observations)
        return self

    def extra_rows(self) -> Iterable[Fact]:
        return [Fact("ridge", float(ridge)) for ridge in self.ridge_]

    def predict(self, text: Text) -> FloatArray:
        return self.rows(text)

    def row(self, query: int, types: IntArray) -> FloatArray:
        """[U] base logits of one query over some tokens, by local id."""
        delta = self.delta_[0]
        change = np.zeros(delta.shape[1])
        stored = slice(delta.indptr[query], delta.indptr[query + 1])
        change[delta.indices[stored]] = delta.data[stored]
        return change[types]

    def chain(self, types: IntArray) -> CCMC:
        return CCMC(np.stack([self.row(int(query), types) for query in types]))

    def chain_terms(self, vocab_size: int) -> ChainTerms:
        nothing = np.zeros((self.delta_[0].shape[0], 0))
        return ChainTerms.single(nothing, nothing, self.delta_[0])

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        return chain_rows(counts, self.row(int(types[history[-1]]), types))
