"""What the units of `depth` cost."""

from __future__ import annotations

from harness.runs.costs import Cost
from harness.runs.units import Unit

TRAINED, JUDGED = 4e-7, 2e-5
"""Seconds per token of a training step, dimension and layer; per token that surrogates are fitted to or judged on."""


def cost(unit: Unit) -> Cost:
    """Training a model and judging its surrogates, those of its rounded copy too."""
    s = unit.settings
    if "training_steps" not in s:
        return Cost(seconds=1.0)
    length = s["prompt_length"] + s["steps"]
    trained = s["training_steps"] * s["batch_size"] * length * s["dimension"] * s["layers"]
    judged = (s["surrogate_sequences"] + s["held_out_sequences"]) * length * len(s["surrogates"])
    return Cost(seconds=TRAINED * trained + JUDGED * judged * (1 + (s["bits"] is not None)))
