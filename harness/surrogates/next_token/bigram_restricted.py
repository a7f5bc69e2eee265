"""`bigram-restricted`: a Markov chain, every distribution restricted to the tokens of the context and renormalised."""

from __future__ import annotations

import numpy as np

from harness.core.registry import register
from harness.data.texts import FloatArray, IntArray
from harness.surrogates._fitting.chain_walk import ChainTerms
from harness.surrogates._fitting.markov import MarkovChain


@register.surrogate(
    "bigram-restricted",
    of="next-token",
    sees=("counts", "query"),
    parameters="K(K-1)",
    rollout=True,
    rung=30,
    about="the plain Markov chain restricted to the context",
    cost="seconds",
    source="this project",
)
class BigramRestricted(MarkovChain):
    """p(j | query) over the tokens of the context.

    Args:
        seed: of the inner split.
    """

    def chain_terms(self, vocab_size: int) -> ChainTerms:
        # log(prior_j + sum_ij) = log prior_j + log(1 + sum_ij / prior_j)
        more = self.sums_.copy()
        more.data = np.log1p(more.data / self.prior_[more.indices])
        return ChainTerms.single(np.ones((len(self.prior_), 1)), np.log(self.prior_)[:, None], more, counted=False)

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        inside = np.where(counts > 0, self.row(int(types[history[-1]]))[types], 0.0)
        restricted: FloatArray = inside / inside.sum()
        return restricted
