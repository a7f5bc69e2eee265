"""`counts`: P flat, so every token of the context is as likely as it is frequent. The baseline of `explained`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.core.registry import register
from harness.data.texts import Text
from harness.surrogates._fitting.chain_walk import ChainTerms
from harness.surrogates.base import FloatArray, IntArray, Surrogate

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.attention.blocks import Block, View
    from harness.attention.log_weights import LogWeights


@register.surrogate(
    "counts",
    of="heads",
    sees=("counts",),
    parameters="0",
    rung=10,
    default=True,
    about="attends in proportion to counts",
)
@register.surrogate(
    "counts",
    of="next-token",
    sees=("counts",),
    parameters="0",
    rollout=True,
    rung=10,
    default=True,
    about="as likely as frequent in the context",
)
class Counts(Surrogate):
    """Attends in proportion to counts."""

    def predict(self, text: Text) -> FloatArray:
        rows: FloatArray = text.counts / text.counts.sum(axis=1, keepdims=True)
        return rows[None]

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        """As every surrogate of heads; the first position counts as one more token."""
        from harness.attention.log_weights import LogWeights

        def of(block: Block) -> LogWeights:
            flat = block.counts.new_zeros(1, *block.counts.shape)
            return LogWeights(flat, by_token=True, sink=flat[:, 0])

        return of

    def chain_terms(self, vocab_size: int) -> ChainTerms:
        return ChainTerms.counts_alone(vocab_size)

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        share: FloatArray = counts / counts.sum()
        return share
