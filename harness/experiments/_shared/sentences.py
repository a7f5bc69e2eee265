"""Sentences that the answers of several experiments share: differences that were found, and those that were not."""

from __future__ import annotations

import numpy as np

from harness.core.format import interval
from harness.core.records import Interval
from harness.stats.contest import ALPHA
from harness.stats.pooling import Difference
from harness.stats.power import smallest_difference


def rough(value: float) -> str:
    """Two digits, for estimates that are no more precise."""
    return np.format_float_positional(value, precision=2, fractional=False, trim="-")


def with_unit(found: Interval, unit: str = "", signed: bool = False) -> str:
    """An estimate with its interval and unit."""
    return interval(found, signed) + (f" {unit}" if unit else "")


def beyond(difference: Interval, unit: str = "") -> str:
    """How large a difference is, where a word beside it says its direction."""
    value, low, high = difference.value, difference.low, difference.high
    if value is None or value >= 0:
        return with_unit(difference, unit)
    ends = None if high is None else -high, None if low is None else -low
    return with_unit(Interval(-value, *ends, difference.n, difference.missing), unit)


def not_found(difference: Interval, to: str, unit: str = "") -> str:
    """That no difference was found, and the smallest that could have been.

    Args:
        difference: whose interval includes 0, or that has none.
        to: the other side of the difference, such as "counts".
        unit: of the difference.
    """
    shown = with_unit(difference, unit, signed=True)
    least = smallest_difference(difference)
    if least is None:
        return f"the difference to {to} ({shown}) cannot be tested: {difference.missing}"
    end = f" {unit}" if unit else ""
    return f"no difference found to {to} ({shown}); this run could only have found one of about {rough(least)}{end}"


def not_beyond(difference: Interval, to: str, tests: int, unit: str = "") -> str:
    """That a difference is no more than chance once it is one of several tests, though its own interval excludes 0.

    Args:
        difference: with its interval, over pairs of units.
        to: the other side of the difference, such as "counts".
        tests: how many Holm's method corrects for.
        unit: of the difference.
    """
    shown = with_unit(difference, unit, signed=True)
    many = f"{tests} test{'s' if tests > 1 else ''}"
    if 2.0 ** (1 - difference.n) * tests > ALPHA:  # the least p-value that so many pairs have
        return f"the difference to {to} ({shown}) rests on {difference.n} units, too few for {many} (Holm)"
    return f"the difference to {to} ({shown}) is not beyond chance (Holm, {many})"


def testable(found: Difference) -> bool:
    """Could the run have distinguished the difference from zero?"""
    return found.direction != 0 or found.identical or found.interval.low is not None
