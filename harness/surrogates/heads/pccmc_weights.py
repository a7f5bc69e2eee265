"""`pccmc-weights`: the chain read off the weights of a head, with positions; nothing is fitted to attention."""

from __future__ import annotations

from collections.abc import Callable

from harness.attention.blocks import Block, View
from harness.attention.log_weights import LogWeights
from harness.attention.loop_terms import LoopTerms
from harness.core.registry import register
from harness.surrogates._fitting.static_scores import ReadOffWeights, asked_along, of_static_sink


@register.surrogate(
    "pccmc-weights",
    of="heads",
    sees=("counts", "query", "distance", "weights"),
    parameters="0",
    rung=80,
    default=True,
    needs=("heads",),
    about="the chain read off the head's weights, with positions",
    cost="no fit",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
class PCCMCWeights(ReadOffWeights):
    """Scores of static inputs with positions, as the layer itself takes them in; exact at layer 0.

    Args:
        heads: the layer's heads, asked per token and position.
    """

    def loop_terms(self) -> LoopTerms:
        return LoopTerms(self.heads, "placed", "placed", sink=of_static_sink(self.heads))

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        sink, asked = self.heads.sink_type is not None, asked_along(self.heads, view)

        def weights(block: Block) -> LogWeights:
            of_sink = asked.sink_scores(block) if sink else None
            return LogWeights(asked.scores(block), by_token=False, sink=of_sink)

        # what is fitted on top of it need not compute it again
        return lambda block: block.shared.get(self.heads, "by position", lambda: weights(block))
