"""Intervals that hold together: many differences of pooled figures judged at once, from few units.

Bonferroni's correction of 100 figures needs ends that leave out 1 resample in 4,000, and the resamples of few units say
nothing about so rare an event: an interval stays near the range of the data, and all of n units lie on one side of the
truth in 2^(1 - n) of the cases. So the end of a joint interval is the farther of two: that of the bootstrap
(`differences`), and that of a t interval whose longer tail is widened by 1 + |skewness| of the units. Joint coverage of
1, 10, 100 and 300 independent figures, nominal .95, measured for the bootstrap alone (60,000 simulations) and for the t
ends alone, which joint intervals never fall short of (400,000 and, with 24 units, 200,000 simulations); the standard
error is at most .01, and .02 for 300 figures of the bootstrap. `tests/harness/stats/test_joint.py` repeats some of it.

    units                   bootstrap alone      t ends
    normal           5      .92 .88 .86 .88      .97 .97 .96 .96
                     6      .93 .89 .85 .82      .97 .97 .97 .97
                     12     .95 .92 .91 .87      .97 .97 .97 .97
                     24     .95 .93 .91 .89      .97 .97 .96 .95
    gamma,           6      .92 .84 .73 .68      .96 .93 .90 .89
    skewness 1       24     .94 .92 .88 .85      .98 .98 .95 .92
    exponential,     6      .90 .70 .33 .17      .94 .82 .58 .44
    skewness 2       24     .94 .89 .71 .54      .98 .98 .95 .91

With heavy tails (t of 3 degrees) the bootstrap alone has .92 .91 .92 .95 with 6 units and .92 .85 .79 .80 with 24, the
t ends .96 or more everywhere. A tail that a few units do not show cannot be covered: where units differ as
exponential ones do and fewer than 24 of them are judged in many unrelated figures, the intervals hold together less
often than they say. What the units show of their skewness does not tell which intervals those are. With 6 exponential
units and 100 figures (.59 of 400,000 simulations; the median skewness of the units where the t ends miss is -.1):

    withheld where the skewness of the units passes 1 (31 of 100 figures)     .60
    withheld where it passes .5 (64 of 100)                                   .68
    the longer tail widened by 1 + 4 |skewness|                               .69
    every interval twice as long, of normal units as well                     .91

So nothing is withheld, and no interval is made twice as long: with normal units they would then hold together always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Interval

Floats = NDArray[np.float64]
POWER = 0.8
MOST_SKEWED = 5.0


class HasUnits(Protocol):
    """A pooled figure, of which `contributions` are numbers whose mean is its value."""

    def contributions(self) -> Floats: ...


@dataclass(frozen=True)
class Spread:
    """How uncertain a difference of two figures is.

    Attributes:
        error: its standard error.
        freedom: degrees of freedom of that.
        skewness: of a unit's contribution.
    """

    error: float
    freedom: float
    skewness: float

    def widened(self, found: Interval, level: float) -> Interval:
        """An interval whose ends are no nearer to the value than those of the t interval of the level.

        Args:
            found: the difference with its bootstrap interval of the same level.
            level: of the figure alone, such as 1 - .05 / figures.
        """
        from scipy.special import stdtrit

        if found.value is None or found.low is None or found.high is None:
            return found
        half = -float(stdtrit(self.freedom, (1 - level) / 2)) * self.error
        below, above = (half * (1 + max(turn * self.skewness, 0.0)) for turn in (-1, 1))
        low, high = min(found.low, found.value - below), max(found.high, found.value + above)
        return Interval(found.value, low, high, found.n, found.missing)

    def findable(self, level: float, power: float = POWER) -> float:
        """The smallest true difference that a two-sided t test of the level finds with this probability.

        Args:
            level: of the figure alone.
            power: chance of finding it.

        Returns:
            A difference in the unit of the figure, not negative.

        Source:
            Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, section 2.4 (the noncentral t).
        """
        from scipy.special import nctdtrinc, stdtrit

        if self.error == 0.0:
            return 0.0
        edge = -float(stdtrit(self.freedom, (1 - level) / 2))
        return float(nctdtrinc(self.freedom, 1 - power, edge)) * self.error


def together(level: float, figures: int | None) -> float:
    """The level of each of several intervals that hold together at a level, by Bonferroni's correction."""
    return 1 - (1 - level) / max(figures or 1, 1)


def paired_spread(a: HasUnits, b: HasUnits) -> Spread | None:
    """The spread of a - b over the units of both; None below two units."""
    found = a.contributions() - b.contributions()
    n = found.size
    if n < 2:
        return None
    offset = found - found.mean()
    if float(np.abs(offset).max()) <= 1e-12 * float(max(np.abs(found).max(), np.abs(a.contributions()).max())):
        return Spread(0.0, n - 1.0, 0.0)
    return Spread(float(found.std(ddof=1)) / np.sqrt(n), n - 1.0, _skewness(offset, n))


def two_sample_spread(a: HasUnits, b: HasUnits) -> Spread | None:
    """The spread of a - b for two independent samples; None where one has fewer than two units."""
    sides = [one.contributions() for one in (a, b)]
    if min(side.size for side in sides) < 2:
        return None
    variances = [float(side.var(ddof=1)) / side.size for side in sides]
    total = sum(variances)
    if total <= (1e-12 * sum(abs(float(side.mean())) for side in sides)) ** 2:
        return Spread(0.0, min(side.size for side in sides) - 1.0, 0.0)
    freedom = total**2 / sum(v**2 / (s.size - 1) for v, s in zip(variances, sides, strict=True))
    thirds = [float(np.mean((side - side.mean()) ** 3)) / side.size**2 for side in sides]
    skewness = (thirds[0] - thirds[1]) / total**1.5 * np.sqrt(freedom + 1)
    return Spread(float(np.sqrt(total)), freedom, float(np.clip(skewness, -MOST_SKEWED, MOST_SKEWED)))


def _skewness(offset: Floats, n: int) -> float:
    return float(np.mean(offset**3) / np.mean(offset**2) ** 1.5)
