"""The three states of a figure in a gate: ok, worse, or undecided because the run is too small to say.

How much worse a figure may be is its tolerance. With the joint interval of the difference between run and baseline

- worse: it moved the wrong way by more than the tolerance, and the interval excludes zero;
- ok: the interval lies within the tolerance (or on the better side); or the figure moved by no more than the tolerance,
  and the gate would have found a change of the size of the tolerance with 80 % power;
- undecided: everything else. The finding says how large a change had to be to be found.

Where there is no interval (fewer than 5 units, or the same difference in each) the tolerance decides what is worse;
such a figure is ok where each unit lies within the tolerance, or the gate had the power. A figure that is identical in
every unit is ok.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from harness.analysis.tolerance import Tolerance
from harness.analysis.verdict import UNDECIDED, Finding
from harness.core.rows import frames
from harness.stats.joint import together
from harness.stats.pooling import Difference, Sample, difference

ROUNDING = 1e-9  # of a figure: smaller differences are those of float64 sums in another order


@dataclass(frozen=True)
class Moved:
    """A figure that both runs have: the place of its finding, the new and the old sample."""

    index: int
    a: Sample
    b: Sample
    metric: str
    surrogate: str
    paired: bool


def judge(findings: list[Finding], moved: list[Moved], tolerance: Tolerance) -> None:
    """Fill in differences, and say which figures are worse, and which are undecided.

    Args:
        findings: of the gate; those of `moved` are replaced.
        moved: figures that both runs have.
        tolerance: allowed changes, and the level at which all intervals hold together.
    """
    differing = []
    for one in moved:
        if tolerance.direction(one.metric) == "neutral" or one.surrogate in frames():
            findings[one.index] = replace(findings[one.index], detail="not judged: neither direction is better")
        elif one.paired and _same(one.a, one.b):
            findings[one.index] = replace(findings[one.index], detail="identical")
        else:
            differing.append(one)
    for one in differing:
        findings[one.index] = _compared(findings[one.index], one, tolerance, len(differing))


def _same(a: Sample, b: Sample) -> bool:
    if a.pooled is None or b.pooled is None or not a.units.equals(b.units):
        return False
    one, other = (pd.DataFrame({"n": s.numerators, "d": s.denominators}) for s in (a.pooled, b.pooled))
    return bool(one.equals(other))


def _compared(finding: Finding, figure: Moved, tolerance: Tolerance, figures: int) -> Finding:
    assert finding.allowed is not None
    found = difference(figure.a, figure.b, figure.metric, figure.paired, tolerance.level, figures)
    moved = found.interval
    if moved.value is None:
        return replace(finding, status="no value", detail=moved.missing or "nothing to compare")
    direction = tolerance.direction(figure.metric)
    low, value, high = _turned(found, direction)
    known = None if found.spread is None else found.spread.findable(together(tolerance.level, figures))
    seen = replace(finding, difference=found, worse=value, findable=known)
    if low is None or high is None:
        how = f"no interval ({moved.missing}): the tolerance decides"
        inside = figure.paired and len(found.units) > 0 and _worst(found, direction) <= finding.allowed
    else:
        how = "paired" if figure.paired else "unpaired, two samples"
        inside = high <= finding.allowed
    if seen.beyond:
        certain = low is None or low > 0
        return replace(seen, status="worse" if certain else UNDECIDED, detail=how)
    least = max(finding.allowed, ROUNDING * max(abs(finding.baseline or 0.0), abs(finding.value or 0.0)))
    shown = inside or (known is not None and known <= least)
    return replace(seen, status="ok" if shown else UNDECIDED, detail=how)


def _turned(found: Difference, direction: str) -> tuple[float | None, float, float | None]:
    """Low end, value and high end of a difference, where up is worse; with `same` both directions are."""
    low, value, high = found.interval.low, found.interval.value, found.interval.high
    assert value is not None
    if direction == "lower" or (direction == "same" and value >= 0):
        turned = low, value, high
    else:
        turned = None if high is None else -high, -value, None if low is None else -low
    if direction == "same" and turned[0] is not None and turned[2] is not None:
        return turned[0], turned[1], max(turned[2], -turned[0])
    return turned


def _worst(found: Difference, direction: str) -> float:
    """The unit that moved furthest the wrong way."""
    units = found.units.to_numpy(dtype=float)
    if direction == "same":
        return float(np.abs(units).max())
    return float((units if direction == "lower" else -units).max())
