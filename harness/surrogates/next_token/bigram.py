"""`bigram`: a Markov chain with no context, over all tokens."""

from __future__ import annotations

import numpy as np

from harness.core.registry import register
from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates._fitting.markov import MarkovChain


@register.surrogate(
    "bigram",
    of="next-token",
    sees=("query",),
    parameters="K(K-1)",
    rollout=True,
    open=True,
    rung=20,
    about="a plain Markov chain over all tokens, with no context",
    cost="seconds",
    source="this project",
)
class Bigram(MarkovChain):
    """p(j | query) over all tokens.

    Args:
        seed: of the inner split.
    """

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
