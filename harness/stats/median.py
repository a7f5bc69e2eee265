"""The median over parts of a model that were all read, such as heads, with an interval over the units that were drawn.

Heads are not a sample: an interval over them would say how far other heads might differ, and there are none. What was
drawn are the prompts, which all heads share. So whole prompts are resampled, the figure of every head is pooled from
them anew, and the median over heads is taken in each draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from harness.core.records import Interval
from harness.stats.intervals import FEWEST_UNITS, Floats, bca, too_few
from harness.stats.pooling import NOT_DRAWN, SEED, Sample
from harness.stats.resampling import times_drawn

_CHUNK = 200_000  # numbers that are held at once: they stay in a processor's cache


def median_of_heads(samples: Sequence[Sample], level: float = 0.95) -> Interval:
    """The median over heads of one figure.

    Args:
        samples: of each head; those that have no value somewhere are left out, as a mean of the rest would flatter
            them.
        level: nominal coverage.

    Returns:
        The median; its interval is the BCa bootstrap over prompts, widened as in `intervals`, and `n` counts prompts;
        of prompts in groups it is over groups. There is none below 5 of them, or where prompts were not kept apart.

    Source:
        Efron, "Better Bootstrap Confidence Intervals", 1987; Efron and Tibshirani, "An Introduction to the Bootstrap",
        1993, section 8.3, for resampling what was drawn.
    """
    known = [one for one in samples if one.pooled is not None and not one.missing]
    if not known:
        return Interval(None, None, None, 0, samples[0].reason or "no heads" if samples else "no heads")
    value = float(np.median([one.value for one in known if one.value is not None]))
    if not all(one.drawn for one in known):
        return Interval(value, None, None, len(known), NOT_DRAWN)
    units = sorted({str(name) for one in known for name in _drawn(one)})
    n = len(units)
    if n < FEWEST_UNITS:
        return Interval(value, None, None, n, too_few(n))
    above, below = _table(known, units)
    turned = known[0].complement
    replicates = np.concatenate([_medians(times, above, below, turned) for times in times_drawn(n, SEED)])
    jackknife = _medians(1.0 - np.eye(n), above, below, turned)
    if np.isnan(replicates).any() or np.isnan(jackknife).any():
        return Interval(value, None, None, n, "in some resamples no head has anything to divide by")
    if np.ptp(replicates) <= 1e-12 * max(abs(value), 1e-300):
        return Interval(value, None, None, n, "all units are equal: resampling has no spread")
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(np.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))
    return bca(value, replicates, jackknife, n, tail)


def _drawn(one: Sample) -> Iterable[object]:
    """What was drawn, for each unit of a sample: its group, or the unit itself."""
    return one.units if one.groups is None else one.groups


def _table(samples: Sequence[Sample], units: Sequence[str]) -> tuple[Floats, Floats]:
    """Numerators and denominators [drawn units, heads]; 0 where a head was not measured on one."""
    above, below = np.zeros((2, len(units), len(samples)))
    place_of = {name: place for place, name in enumerate(units)}
    for column, one in enumerate(samples):
        assert one.pooled is not None
        places = [place_of[str(name)] for name in _drawn(one)]
        np.add.at(above[:, column], places, one.pooled.numerators)
        np.add.at(below[:, column], places, one.pooled.denominators)
    return above, below


def _medians(weights: Floats, above: Floats, below: Floats, turned: bool) -> Floats:
    """The median over heads of the pooled figures under each row of weights [draws, units]; NaN where there is none."""
    medians = np.empty(len(weights))
    step = max(1, _CHUNK // above.shape[1])
    for first in range(0, len(weights), step):
        part = weights[first : first + step]
        divided = part @ below
        ratio, some = part @ above, divided > 0
        np.divide(ratio, divided, out=ratio, where=some)
        if not some.all():
            ratio[~some] = np.nan
        gone = np.isnan(ratio)
        if gone.any():  # heads without anything to divide by in this draw do not take part in it
            middle = np.array(
                [np.median(row[~lost]) if not lost.all() else np.nan for row, lost in zip(ratio, gone, strict=True)]
            )
        else:
            middle = _middle(ratio)
        medians[first : first + step] = middle
    return 1.0 - medians if turned else medians


def _middle(rows: Floats) -> Floats:
    """`np.median` of each row, without a search for NaN."""
    half = rows.shape[1] // 2
    parted = np.partition(rows, half, axis=1)  # of two places at once it is several times as slow
    above = parted[:, half]
    if rows.shape[1] % 2:
        return above
    found: Floats = (parted[:, :half].max(axis=1) + above) / 2
    return found
