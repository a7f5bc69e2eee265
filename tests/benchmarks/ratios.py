"""Timing of several ways to do one thing, inside one process, and the table that a session prints at its end."""

from __future__ import annotations

import operator
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import transformers

from harness.core.records import Cell, Column, Table
from harness.report.render.markdown import to_markdown
from harness.runs.threads import cores

Row = tuple[str, str, float, str]
"""Case, what was measured, value, and the bar that it is held to; empty where there is none."""
TABLE: list[Row] = []
PAGE = Path(__file__).resolve().parents[2] / "results" / "speed.md"
ABOUT = (
    "Ratios are of two ways to do one thing in one run, in turn; everything is a median. A bar is what a value should "
    "reach. Where it does, an assertion holds the value to it; where it does not, the last column says so, and the "
    "assertion holds it to what was reached. Written by `pytest tests/benchmarks --benchmark-enable --speed-page`."
)


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median wall time of `work()` after one call that does not count."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def in_turn(ways: Mapping[str, Callable[[], Any]], repeats: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of several ways to do one thing, round by round, so that whatever else the machine does slows all.

    Args:
        ways: by name.
        repeats: rounds, after one that does not count.
        clock: `time.process_time` for ways of one thread, `time.perf_counter` for those of several.
    """
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, work in ways.items():
            start = clock()
            work()
            spent[name].append(clock() - start)
    return {name: seconds[1:] for name, seconds in spent.items()}


def median_ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Median over rounds of one way's seconds over another's."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def need_both_cores() -> None:
    """Skip what compares two cores with one where this process does not get two whole ones just now."""
    if cores() < 2:
        pytest.skip("needs two cores")
    code = "import time\na, b = time.process_time(), time.perf_counter()\nwhile time.perf_counter() - b < 2: pass\n"
    code += "print((time.process_time() - a) / (time.perf_counter() - b))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    granted = min(float(process.communicate()[0]) for process in both)
    if granted < 0.9:
        pytest.skip(f"other work leaves {granted:.0%} of a core to the slower of two processes")


def record(case: str, what: str, value: float, bar: str = "") -> None:
    """Add a line to the table."""
    TABLE.append((case, what, float(value), bar))


def met(value: float, bar: str) -> str:
    """Is a bar such as "<= 1.5", ">= 3" or "bar 400" (at least) met? Empty where it is none."""
    found = re.fullmatch(r"(<=|>=|<|>|bar) ([\d.]+)", bar)
    if found is None:
        return ""
    within = {"<=": operator.le, "<": operator.lt, ">": operator.gt}.get(found[1], operator.ge)
    return "yes" if within(value, float(found[2])) else "no"


def page(rows: Sequence[Row]) -> str:
    """The text of results/speed.md."""
    body: list[list[Cell]] = [[case, what, value, bar, met(value, bar)] for case, what, value, bar in rows]
    columns = [
        Column("case", left=True), Column("what", left=True), Column("value"), Column("bar", left=True),
        Column("met", left=True),
    ]  # fmt: skip
    versions = f"numpy {numpy.__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
    text = to_markdown(Table("speed", "Measured", columns, body)).strip()
    return f"## Speed and memory\n\n{ABOUT} Machine: {machine}.\n\n{text}\n"
