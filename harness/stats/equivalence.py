"""Do two things agree? Two one-sided tests within a margin, over prompts that come in groups.

"No significant difference" is not agreement: few prompts find no difference anywhere. A figure agrees where its
difference is shown to lie within the margin; it differs where it is shown not to be 0; otherwise nothing is decided.
A difference that is shown to be both within the margin and not 0 is small enough: it agrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.core.records import Interval
from harness.stats.grouped import GroupMean, group_mean, tails
from harness.stats.joint import POWER, Spread
from harness.stats.significance import holm

ALPHA = 0.05
Word = Literal["agrees", "differs", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """Whether a difference is shown to be within a margin, shown not to be 0, or neither.

    Attributes:
        word: the verdict.
        interval: the mean difference with its 95 % interval; `n` counts groups.
        inner: its 90 % interval, widened for few groups: inside (-margin, margin) exactly where p_agrees is below .05.
        margin: named before the data were seen.
        p_differs: two-sided, of a difference of 0; None where there is nothing to test.
        p_agrees: of a difference beyond the margin; None where there is nothing to test.
        n, groups: prompts and their groups.
        findable: the smallest difference that would have been found with 80 % power.
        provable: the smallest margin within which equal means would have been shown to agree with 80 % power.
        missing: why there is nothing to test.
    """

    word: Word
    interval: Interval
    inner: Interval
    margin: float
    p_differs: float | None
    p_agrees: float | None
    n: int
    groups: int
    findable: float | None
    provable: float | None
    missing: str | None = None


def stretch(freedom: float) -> float:
    """By how much the two one-sided tests enlarge the standard error: 1 + 2 / degrees of freedom.

    With few groups of skewed values a one-sided test at 5 % rejects in 6 to 9 % of the cases; with this in at most
    5 to 6 % (`tests/benchmarks/test_inference.py`).
    """
    return 1 + 2 / freedom


def judge(differences: ArrayLike, groups: ArrayLike | None, margin: float) -> Verdict:
    """The verdict on one difference.

    Args:
        differences: [n] of each prompt the surrogate's mean over its seeds minus the model's.
        groups: [n] what prompts share; None where they share nothing.
        margin: how large a difference would not matter, above 0.

    Returns:
        The verdict at 5 %, before any correction for other figures.

    Raises:
        ValueError: a margin that is not above 0, or as `grouped.group_sums`.

    Source:
        Schuirmann, "A Comparison of the Two One-Sided Tests Procedure and the Power Approach", 1987.
    """
    if not margin > 0:
        raise ValueError(f"the margin must be above 0, got {margin}")
    mean = group_mean(differences, groups)
    spread = mean.spread()
    if mean.found is None or spread is None:
        nothing = mean.interval()
        return Verdict("undecided", nothing, nothing, margin, None, None, mean.n, mean.groups, None, None, mean.missing)
    p_agrees = agreement_p(mean, margin)
    p_differs = mean.p()
    return Verdict(
        _word(p_agrees, p_differs),
        mean.interval(),
        mean.interval(1 - 2 * ALPHA, stretch(mean.found.freedom)),
        margin,
        p_differs,
        p_agrees,
        mean.n,
        mean.groups,
        spread.findable(1 - ALPHA),
        provable_margin(spread),
    )


def agreement_p(mean: GroupMean, margin: float) -> float | None:
    """The larger p-value of the two one-sided tests; None where there is no interval."""
    if mean.found is None:
        return None
    wide = stretch(mean.found.freedom)
    return max(float(tails(mean.found, margin, wide)[0]), float(tails(mean.found, -margin, wide)[1]))


def provable_margin(spread: Spread, power: float = POWER) -> float:
    """The smallest margin within which equal means are shown to agree with this probability.

    Args:
        spread: standard error and degrees of freedom of a difference.
        power: chance of showing it.

    Source:
        Chow, Shao and Wang, "Sample Size Calculations in Clinical Research", 2008, section 3.2.
    """
    from scipy.special import stdtrit

    edge, reach = stdtrit(spread.freedom, 1 - ALPHA), stdtrit(spread.freedom, 1 - (1 - power) / 2)
    return float(stretch(spread.freedom) * edge + reach) * spread.error


def judged_together(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of one table, corrected for being many.

    Each figure has two hypotheses, "no difference" and "a difference beyond the margin", of which at most one is true.
    So of 2m hypotheses at most m are true, and Holm's method needs no larger factor than m.

    Args:
        verdicts: of all figures of the table, in any order.

    Returns:
        The same with corrected p-values and words: the chance of any wrong "agrees" or "differs" is at most 5 %.
        Intervals are left as they are, of one figure each.
    """
    tested = [one for one in verdicts if one.p_agrees is not None and one.p_differs is not None]
    raw = [p for one in tested for p in (one.p_agrees, one.p_differs)]
    corrected = iter(holm(np.array(raw, dtype=np.float64), most_true=max(len(tested), 1)).tolist())
    found = []
    for one in verdicts:
        if one.p_agrees is None or one.p_differs is None:
            found.append(one)
            continue
        agrees, differs = next(corrected), next(corrected)
        found.append(replace(one, word=_word(agrees, differs), p_agrees=agrees, p_differs=differs))
    return found


def _word(p_agrees: float | None, p_differs: float | None) -> Word:
    if p_agrees is not None and p_agrees <= ALPHA:
        return "agrees"
    return "differs" if p_differs is not None and p_differs <= ALPHA else "undecided"
