"""What the units of `equivalence` cost."""

from __future__ import annotations

from harness.runs.costs import Cost
from harness.runs.units import Unit

TRAINED, COMPARED = 1e-6, 2e-7
"""Seconds per token of a prompt that a model learns from and dimension, and per token of one that is compared."""


def cost(unit: Unit) -> Cost:
    """Models with random and with trained weights against their chains."""
    s = unit.settings
    if "dimension" not in s:
        return Cost(seconds=0.5)
    width = s["prompt_length"] * (s["dimension"] + s["vocab_size"])
    return Cost(seconds=0.1 + (TRAINED * s["observations"] + COMPARED * s["prompts"]) * width)
