"""`counts`: P flat, so a head attends to every token as often as it stands in the context. `explained` is over it."""

from __future__ import annotations

from collections.abc import Callable

from harness.attention.blocks import Block, View
from harness.attention.log_weights import LogWeights
from harness.attention.loop_terms import FLAT, LoopTerms
from harness.core.registry import register
from harness.data.texts import FloatArray, Text
from harness.surrogates._fitting.counts import count_shares
from harness.surrogates.base import HeadSurrogate


@register.surrogate(
    "counts",
    of="heads",
    sees=("counts",),
    parameters="0",
    rung=0,
    default=True,
    about="attends in proportion to counts",
    cost="no fit",
    source="this project",
)
class Counts(HeadSurrogate):
    """Attends in proportion to counts; the first position counts as one more token."""

    def predict(self, text: Text) -> FloatArray:
        return count_shares(text)

    def loop_terms(self) -> LoopTerms:
        """In a running model the first position is treated as for all surrogates that say nothing about it."""
        return FLAT

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        def of(block: Block) -> LogWeights:
            flat = block.counts.new_zeros(1, *block.counts.shape)
            return LogWeights(flat, by_token=True, sink=flat[:, 0])

        return of
