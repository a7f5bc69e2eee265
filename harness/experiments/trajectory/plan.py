"""The plan of `trajectory`: which units of work a config becomes."""

from __future__ import annotations

from typing import Any

from harness.experiments._shared.plans import on_one_thread
from harness.experiments.experiment import Request
from harness.runs.units import Unit

LOSER_A = (0.6, 0.7, 0.8, 0.9)
"""Values of P[0, 0] at which a loser's exponent is measured."""


def plan(request: Request) -> list[Unit]:
    """A unit per row of the grid, per exponent of a loser, per p, one for the ladder, and one that pools them."""
    settings = request.settings.limited(request.config.limit)
    shared: dict[str, Any] = {
        "seed": request.config.seed,
        "paths": settings.paths,
        "steps": settings.steps,
        "phase_paths": settings.phase_paths,
        "phase_steps": settings.phase_steps,
        "grid": settings.grid,
    }
    module = f"{__package__}.units"
    grid = [(index + 1) / (settings.grid + 1) for index in range(settings.grid)]
    units = [Unit(f"{module}:phase", f"trajectory, phase diagram, a = {a:g}", {**shared, "a": a}) for a in grid]
    units += [Unit(f"{module}:loser", f"trajectory, loser, a = {a:g}", {**shared, "a": a}) for a in LOSER_A]
    units += [
        Unit(f"{module}:equal", f"trajectory, equal rows, p = {p:g}", {**shared, "p": p})
        for p in settings.loser_weights
    ]
    units.append(Unit(f"{module}:ladder", "trajectory, four tokens", shared))
    pool = Unit(f"{module}:pool", "trajectory: pooling", {"seed": request.config.seed}, tuple(units))
    return on_one_thread([*units, pool], __package__)
