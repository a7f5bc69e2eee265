"""`ccmc-head`: the chain of the single head that predicts the training texts best."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.registry import register
from harness.surrogates._fitting.head_chains import HeadChain
from harness.surrogates._fitting.head_mixture import HeadMixture


@register.surrogate(
    "ccmc-head",
    of="next-token",
    sees=("counts", "query", "weights"),
    parameters="0",
    rollout=True,
    rung=120,
    needs=("chains",),
    about="the chain of the single head that predicts the training texts best",
    cost="a pass over the training texts for the inputs of heads",
    source="this project",
)
class CCMCHead(HeadMixture):
    """The first of the chains, as it is.

    Args:
        chains: of single heads, the best in training first.
    """

    def __init__(self, chains: Sequence[HeadChain]) -> None:
        super().__init__(chains[:1], with_counts=False)
