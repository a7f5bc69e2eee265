"""`ccmc-mixture`: a mixture of the chains of heads and of counts."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.registry import register
from harness.surrogates._fitting.head_chains import HeadChain
from harness.surrogates._fitting.head_mixture import HeadMixture


@register.surrogate(
    "ccmc-mixture",
    of="next-token",
    sees=("counts", "query", "weights"),
    parameters="heads",
    rollout=True,
    rung=130,
    needs=("chains",),
    about="a mixture of the chains of heads and of counts",
    cost="a pass over the training texts for the inputs of heads",
    source="this project",
)
class CCMCMixture(HeadMixture):
    """All of the chains and the counts, each with a weight.

    Args:
        chains: of single heads, the best in training first.
    """

    def __init__(self, chains: Sequence[HeadChain]) -> None:
        super().__init__(chains, with_counts=True)
