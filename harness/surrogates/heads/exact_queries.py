"""`exact-queries`: control. Queries of the model in their context, keys of static inputs."""

from __future__ import annotations

from harness.attention.blocks import Asked
from harness.core.registry import register
from harness.surrogates._fitting.exact_sides import ExactSide


@register.surrogate(
    "exact-queries",
    of="heads",
    sees=("query", "distance", "weights", "attention"),
    parameters="0",
    control=True,
    rung=150,
    needs=("heads",),
    about="control: queries of the model in their context, keys of static inputs",
    cost="no fit",
    source="this project",
)
class ExactQueries(ExactSide):
    """What it explains beyond `pccmc-weights` is lost by queries that know their token and position alone."""

    sides = ("model", "placed")

    def mixed(self, model: Asked, static: Asked) -> Asked:
        return Asked(model.call, model.query, static.key)
