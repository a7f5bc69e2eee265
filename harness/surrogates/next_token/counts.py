"""`counts`: P flat, so every token of the context is as likely as it is frequent. The baseline of `explained`."""

from __future__ import annotations

from harness.core.registry import register
from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates._fitting.chain_walk import ChainTerms
from harness.surrogates._fitting.counts import count_shares
from harness.surrogates.base import NextTokenSurrogate


@register.surrogate(
    "counts",
    of="next-token",
    sees=("counts",),
    parameters="0",
    rollout=True,
    rung=0,
    default=True,
    about="every token of the context is as likely as it is frequent",
    cost="no fit",
    source="this project",
)
class Counts(NextTokenSurrogate):
    """The share of each token among those of the context."""

    def predict(self, text: Text) -> FloatArray:
        return count_shares(text)

    def chain_terms(self, vocab_size: int) -> ChainTerms:
        return ChainTerms.counts_alone(vocab_size)

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        share: FloatArray = counts / counts.sum()
        return share
