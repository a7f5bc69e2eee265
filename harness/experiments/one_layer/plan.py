"""The units of the experiment `one-layer`: one per repetition."""

from __future__ import annotations

from harness.experiments.experiment import Request
from harness.runs.units import Unit


def plan(request: Request) -> list[Unit]:
    """One unit per repetition."""
    config, settings = request.config, request.settings
    repetitions = settings.repetitions if config.limit is None else min(settings.repetitions, config.limit)
    shared = settings.model_dump(exclude={"kind", "repetitions"})
    return [
        Unit(
            "harness.experiments.one_layer.units:repetition",
            f"one-layer model, repetition {index + 1} of {repetitions}",
            {**shared, "seed": config.seed, "repetition": index},
        )
        for index in range(repetitions)
    ]
