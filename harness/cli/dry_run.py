"""What `ccmc run --dry-run` prints: the plan, what is stored of it, and what it would take by estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.core.format import number
from harness.report.terminal import print_tables, say

if TYPE_CHECKING:
    from harness.experiments.estimating import Estimate

OFF = 1.5
"""How far such estimates err, as a factor: `results/speed.md` has the measurements."""


def print_estimate(found: Estimate, format_: str) -> None:
    """Print an estimate.

    Args:
        found: of a run.
        format_: rich, or one that prints the table alone.
    """
    if format_ != "rich":
        print_tables([found.table()], format_)
        return
    from harness.report.overview import duration, facts

    made = found.prepared
    say(f"{made.manifest['name']}: {facts(made.manifest)}; nothing was run")
    for line in made.loaded.notes:
        say(f"note: {line}")
    for model, speed in found.speeds.items():
        say(f"speed here, {_at_once(found.workers)}: {speed.said(model, found.batches[model])}")
    print_tables([found.table()])
    missing = f"all that is missing, {_at_once(found.workers)}: {duration(found.total)}"
    say(f"{missing} by estimate, which may err by {OFF:g} x")
    if found.unknown:
        say(f"without an estimate: {found.unknown} units, whose experiments say nothing about their cost")
    size = f"{number(found.memory / 1e9)} GB a worker, by the size of weights and vocabulary"
    say(f"memory: {size}; run directory: {made.path}")


def _at_once(workers: int) -> str:
    return "one unit at a time" if workers == 1 else f"{workers} units at once"
