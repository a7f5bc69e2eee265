"""Timing of several ways to do one thing, inside one process, and the table that a session prints at its end."""

from __future__ import annotations

import statistics
import time

TABLE: list[tuple[str, str, float, str]] = []


def median_seconds(work, repeats):
    """Median wall time of `work()` after one call that does not count."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def record(case, what, value, bar=""):
    TABLE.append((case, what, value, bar))
