"""What the units of `winners` cost."""

from __future__ import annotations

from harness.runs.costs import Cost
from harness.runs.units import Unit

WALKED = 2e-8
"""Seconds per step of a walk and token of the vocabulary."""


def cost(unit: Unit) -> Cost:
    """Walks and the mean field of a chain, or walks with finite windows."""
    s = unit.settings
    if "repetition" not in s:
        return Cost(seconds=1.0)
    return Cost(seconds=0.1 + WALKED * s["paths"] * s["horizon"] * s.get("K", 10))
