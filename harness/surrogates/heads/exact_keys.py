"""`exact-keys`: control. Keys of the model in their context, queries of static inputs."""

from __future__ import annotations

from harness.attention.blocks import Asked
from harness.core.registry import register
from harness.surrogates._fitting.exact_sides import ExactSide


@register.surrogate(
    "exact-keys",
    of="heads",
    sees=("query", "distance", "weights", "attention"),
    parameters="0",
    control=True,
    rung=140,
    needs=("heads",),
    about="control: keys of the model in their context, queries of static inputs",
    cost="no fit",
    source="this project",
)
class ExactKeys(ExactSide):
    """What it explains beyond `pccmc-weights` is lost by keys that know their token and position alone."""

    sides = ("placed", "model")

    def mixed(self, model: Asked, static: Asked) -> Asked:
        return Asked(model.call, static.query, model.key)
