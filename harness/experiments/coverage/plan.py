"""The plan of `coverage`: which units of work a config becomes."""

from __future__ import annotations

from harness.experiments._shared.claims import plan_repetitions
from harness.experiments._shared.plans import on_one_thread
from harness.experiments.experiment import Request
from harness.runs.units import Unit


def plan(request: Request) -> list[Unit]:
    """One unit per repetition, with all designs, and one that pools them."""
    settings = request.settings.limited(request.config.limit)
    return on_one_thread(plan_repetitions(request.config, settings), __package__)
