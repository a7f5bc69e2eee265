"""Who leads: the best of several figures against every other, by tests that Holm's method corrects together.

A figure is called best only where it beats each of its competitors; the family is every comparison of the table or of
the question. With n paired units no p-value is below 2^(1 - n), so nothing is called best from 5 units, and from few
units not among many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.stats.differences import paired_p, two_sample_p
from harness.stats.intervals import FEWEST_UNITS
from harness.stats.pooling import SEED, Sample
from harness.stats.significance import holm, sign_flip_p

ALPHA = 0.05


def p_of_lead(best: Sample, other: Sample, sign: int, paired: bool = True) -> float:
    """The p-value of one figure against another that it is better than.

    Args:
        best, other: two figures of one metric.
        sign: +1 where higher is better, -1 where lower is.
        paired: whether units of the same name are the same unit.

    Returns:
        Two-sided, by random signs of pairs or permutation of two samples; 1 where there is nothing to test: no value,
        too few units, no difference, or the other one is better on the units that both have.
    """
    if best.pooled is None or other.pooled is None or not (best.drawn and other.drawn):
        return 1.0
    one, two = best.pooled.by(best.groups), other.pooled.by(other.groups)
    if paired:
        common = best.units.intersection(other.units)
        pair = best.at(common), other.at(common)
        if len(common) < FEWEST_UNITS or pair[0] is None or pair[1] is None:
            return 1.0
        groups = best.groups_at(common)
        one, two = pair[0].by(groups), pair[1].by(groups)
    turn = -sign if best.complement else sign
    if turn * (one.value - two.value) <= 0 or min(one.numerators.size, two.numerators.size) < FEWEST_UNITS:
        return 1.0
    return paired_p(one, two, SEED) if paired else two_sample_p(one, two, SEED)


def p_of_zero(share: Sample) -> float:
    """Two-sided p-value, by random signs, of a share explained against 0, which its reference explains.

    Args:
        share: 1 less a pooled ratio.
    """
    drawn = None if share.pooled is None else share.pooled.by(share.groups)
    if drawn is None or drawn.numerators.size < FEWEST_UNITS:
        return 1.0
    return sign_flip_p(drawn.contributions() - 1.0, SEED)


def clear(contests: Sequence[Sequence[float]]) -> list[bool]:
    """Which contests have a clear leader, all judged together.

    Args:
        contests: of each, the p-values of its leader against every competitor.

    Returns:
        True where the leader has competitors and beats all of them at ALPHA, corrected for the tests of all contests.
    """
    every = [p for contest in contests for p in contest]
    corrected = iter(holm(every).tolist())
    found = []
    for contest in contests:
        own = [next(corrected) for _ in contest]
        found.append(bool(own) and max(own) <= ALPHA)
    return found


def beyond_chance(p_values: Sequence[float | None]) -> list[bool]:
    """Which of several tests are significant after Holm's correction; None (nothing to test) is not."""
    corrected = holm(np.array([1.0 if p is None else p for p in p_values]))
    return [bool(p <= ALPHA) for p in corrected]
