"""What the units of `positions` cost."""

from __future__ import annotations

from harness.runs.costs import Cost
from harness.runs.units import Unit

TRAINED, WALKED = 1e-6, 1e-6
"""Seconds per observation, token of its prompt and step of training; and per step of a walk."""


def cost(unit: Unit) -> Cost:
    """Models with all kinds of positions, and walks with every memory."""
    s = unit.settings
    if "repetition" not in s:
        return Cost(seconds=1.0)
    trained = s["observations"] * s["prompt_length"] * s["steps_of_training"]
    return Cost(seconds=TRAINED * trained + WALKED * s["paths"] * s["steps"])
