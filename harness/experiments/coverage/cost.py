"""What the units of `coverage` cost."""

from __future__ import annotations

from harness.runs.costs import Cost
from harness.runs.units import Unit

DRAWN, TRAINED = 1e-6, 0.5
"""Seconds per observation and token of its prompt, all designs together, and of training a one-layer model."""


def cost(unit: Unit) -> Cost:
    """Samples of all designs and sizes with their fits."""
    s = unit.settings
    if "repetition" not in s:
        return Cost(seconds=1.0)
    trained = TRAINED * len(s["observations"]) * (s["repetition"] < s["trained_repetitions"])
    return Cost(seconds=0.1 + DRAWN * sum(s["observations"]) * s["prompt_length"] + trained)
