"""What the units of `theory-gap` cost."""

from __future__ import annotations

from harness.runs.costs import Cost
from harness.runs.units import Unit

TRAINED, JUDGED = 4e-7, 2e-5
"""Seconds per token of a training step and dimension, and per token that surrogates are fitted to or judged on."""
SLOWER = {"two-layers": 2.0, "positions": 2.0, "four-heads": 1.2, "two-heads": 1.1, "mlp": 1.2}


def cost(unit: Unit) -> Cost:
    """Training a rung and judging its surrogates."""
    s = unit.settings
    if "rung" not in s:
        return Cost(seconds=1.0)
    length = s["prompt_length"] + s["steps"]
    trained = s["training_steps"] * s.get("batch_size", 32) * length * s["dimension"]
    judged = (s["surrogate_sequences"] + s["held_out_sequences"]) * length * len(s["surrogates"])
    return Cost(seconds=(TRAINED * trained + JUDGED * judged) * SLOWER.get(s["rung"], 1.0))
