"""`counts`: P flat, so every token of the context is as likely as it is frequent. The baseline of `explained`."""

from __future__ import annotations

from harness.surrogates.base import FloatArray, IntArray, Surrogate
from harness.surrogates.chain_walk import ChainTerms
from harness.texts import Text


class Counts(Surrogate):
    """Attends in proportion to counts."""

    name = "counts"

    def predict(self, text: Text) -> FloatArray:
        rows: FloatArray = text.counts / text.counts.sum(axis=1, keepdims=True)
        return rows[None]

    def chain_terms(self, vocab_size: int) -> ChainTerms:
        return ChainTerms.counts_alone(vocab_size)

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        share: FloatArray = counts / counts.sum()
        return share
