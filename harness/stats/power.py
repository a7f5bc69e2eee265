"""Power of a run: the smallest difference that it could have distinguished from zero."""

from __future__ import annotations

from harness.core.records import Interval

_NORMAL = 1.96  # half a 95 % interval, in standard errors
_FOUND = 2.8  # 1.96 + 0.84: a difference that many standard errors from zero is found with 80 % power


def smallest_difference(interval: Interval) -> float | None:
    """The smallest true difference that a run of this size finds with 80 % power at the 5 % level.

    Args:
        interval: a difference with its 95 % interval.

    Returns:
        2.8 standard errors, the standard error being half the interval over 1.96; None where there is no interval.

    Source:
        Gelman and Hill, "Data Analysis Using Regression and Multilevel/Hierarchical Models", 2007, section 20.2.
    """
    if interval.low is None or interval.high is None:
        return None
    return (interval.high - interval.low) / 2 / _NORMAL * _FOUND
