"""What the units of `sample-complexity` cost."""

from __future__ import annotations

from harness.runs.costs import Cost
from harness.runs.units import Unit

DRAWN, TRAINED = 2e-7, 0.5
"""Seconds per observation and token of its prompt, and of training a one-layer model."""


def cost(unit: Unit) -> Cost:
    """Samples of all sizes with their fits."""
    s = unit.settings
    if "vocab_size" not in s:
        return Cost(seconds=1.0)
    drawn = sum(s["per_square"]) * s["vocab_size"] ** 2 * s["prompt_length"]
    trained = TRAINED * len(s["per_square"]) * (s["repetition"] < s["trained_repetitions"])
    return Cost(seconds=0.1 + DRAWN * drawn + trained)
