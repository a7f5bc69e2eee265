"""Controls that show what a head's attention depends on beyond token and position.

One side of every score is the model's own, in its context; the other comes from one static input per token, as in
`pccmc-weights`. What `exact-keys` explains beyond `pccmc-weights` is lost by a key that knows its token and position
alone, and what `exact-queries` explains beyond it is lost by such a query. Both read the held-out text's own attention,
so neither predicts anything.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

from harness.attention.blocks import Asked, Block, View
from harness.attention.log_weights import LogWeights
from harness.attention.loop_terms import LoopTerms, Side
from harness.surrogates._fitting.static_scores import ReadOffWeights, asked_along


class ExactSide(ReadOffWeights):
    """Queries or keys of the model, the others of static inputs.

    Args:
        heads: the layer's heads, with static inputs per token and position.
    """

    predicts: ClassVar[bool] = False
    sides: ClassVar[tuple[Side, Side]]
    """Where queries and keys come from."""

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        """Get ready for a text.

        Raises:
            ValueError: the view does not hold the model's own queries and keys.
        """
        if view.asked is None:
            raise ValueError(f"{self.name} needs the model's own queries and keys beside the text")
        mixed = self.mixed(view.asked, asked_along(self.heads, view))

        def of(block: Block) -> LogWeights:
            return LogWeights(mixed.scores(block), by_token=False, sink=mixed.sink_scores(block))

        return of

    def loop_terms(self) -> LoopTerms:
        return LoopTerms(self.heads, *self.sides, sink="score")

    @abstractmethod
    def mixed(self, model: Asked, static: Asked) -> Asked:
        """Queries of one, keys of the other."""
