"""What the units of `trajectory` cost."""

from __future__ import annotations

from harness.runs.costs import Cost
from harness.runs.units import Unit

WALKED = 2e-8
"""Seconds per step of a walk."""


def cost(unit: Unit) -> Cost:
    """Walks: of a row of the grid, or long ones."""
    s, task = unit.settings, unit.task.partition(":")[2]
    if task == "pool":
        return Cost(seconds=1.0)
    steps = s["grid"] * s["phase_paths"] * s["phase_steps"] if task == "phase" else s["paths"] * s["steps"]
    return Cost(seconds=0.1 + WALKED * steps)
