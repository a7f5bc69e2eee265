"""`exact-keys`, `exact-queries`: controls that show what a head's attention depends on beyond token and position.

One side of every score is the model's own, in its context; the other is asked with one static input per token, as in
`pccmc-weights`. What `exact-keys` explains beyond `pccmc-weights` is lost by a key that knows its token and position
alone, and what `exact-queries` explains beyond it is lost by such a query. Both read the held-out text's own attention,
so neither predicts anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from harness.attention.blocks import Asked, Block, View
from harness.attention.log_weights import LogWeights
from harness.attention.static_inputs import StaticHeads
from harness.core.registry import register
from harness.surrogates.base import Observations
from harness.surrogates.heads.from_weights import asked_along


@register.surrogate(
    "exact-keys",
    of="heads",
    sees=("query", "distance", "weights", "attention"),
    parameters="0",
    control=True,
    rung=150,
    about="control: keys of the model in their context, queries of static inputs",
)
class ExactKeys:
    """Keys of the model, queries of static inputs.

    Args:
        heads: the layer's heads, asked per token and position.
    """

    name: str

    def __init__(self, heads: StaticHeads) -> None:
        self.heads = heads

    def fit(self, observations: Observations) -> Self:
        """Nothing is fitted."""
        return self

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        """As every surrogate of heads.

        Raises:
            ValueError: the view has not been told what the model asked.
        """
        if view.asked is None:
            raise ValueError(f"{self.name} needs the model's own queries and keys beside the text")
        mixed = self._mixed(view.asked, asked_along(self.heads, view))

        def of(block: Block) -> LogWeights:
            return LogWeights(mixed.scores(block), by_token=False, sink=mixed.sink_scores(block))

        return of

    def _mixed(self, model: Asked, static: Asked) -> Asked:
        return Asked(model.call, static.query, model.key)


@register.surrogate(
    "exact-queries",
    of="heads",
    sees=("query", "distance", "weights", "attention"),
    parameters="0",
    control=True,
    rung=160,
    about="control: queries of the model in their context, keys of static inputs",
)
class ExactQueries(ExactKeys):
    """Queries of the model, keys of static inputs.

    Args:
        heads: the layer's heads, asked per token and position.
    """

    def _mixed(self, model: Asked, static: Asked) -> Asked:
        return Asked(model.call, model.query, static.key)
