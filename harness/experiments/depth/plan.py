"""The plan of `depth`: which units of work a config becomes."""

from __future__ import annotations

from harness.core import registry
from harness.experiments._shared.claims import repetitions
from harness.experiments._shared.claims_words import counted
from harness.experiments._shared.plans import on_one_thread
from harness.experiments.experiment import Request
from harness.runs.units import Unit


def plan(request: Request) -> list[Unit]:
    """One unit per depth, kind of positions and repetition, and one to pool."""
    config = request.config
    settings = request.settings.limited(config.limit)
    module = f"{__package__}.units"
    total = repetitions(config, settings.repetitions)
    shared = settings.model_dump(mode="json", exclude={"repetitions", "layers", "positions"})
    known = registry.surrogates("next-token")
    made = [
        Unit(
            f"{module}:model",
            f"depth, {counted(layers, 'layer')}, positions {positions}, repetition {index + 1} of {total}",
            {**shared, "layers": layers, "positions": positions, "seed": config.seed, "repetition": index},
            uses=tuple(known[name] for name in settings.surrogates),
        )
        for positions in settings.positions
        for layers in settings.layers
        for index in range(total)
    ]
    pooling = {"seed": config.seed, "layers": list(settings.layers), "positions": list(settings.positions)}
    return on_one_thread([*made, Unit(f"{module}:pool", "depth: pooling", pooling, tuple(made))], __package__)
