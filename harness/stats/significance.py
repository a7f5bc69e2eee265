"""Is a difference more than chance: a paired test by random signs, and Holm's correction for many tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.intervals import Floats, checked_values
from harness.stats.resampling import RESAMPLES, signs_drawn

_EXACT_UNITS = 13


def sign_flip_p(differences: ArrayLike, seed: int) -> float:
    """Two-sided p-value of a mean paired difference under random signs.

    Exact up to 13 units (all 2^n signs are tried); above, 10,000 random signs and the observed one.

    Args:
        differences: [n] one difference per unit, finite.
        seed: of the random signs.

    Returns:
        A p-value, never 0; at least 2^(1 - n).

    Raises:
        ValueError: no differences, or one that is NaN or infinite (its index is named).

    Source:
        Fisher, "The Design of Experiments", 1935, section 21.
    """
    d = checked_values(differences, "differences", finite=True)
    if d.size == 0:
        raise ValueError("no differences to test")
    # Equal sums reached in another order differ in the last digits; they count as extreme.
    observed = abs(float(d.sum())) - 1e-12 * float(np.abs(d).sum())
    if d.size <= _EXACT_UNITS:
        signs = 1 - 2 * ((np.arange(2**d.size)[:, None] >> np.arange(d.size)) & 1)
        return float(np.mean(np.abs(signs @ d) >= observed))
    extreme = 1
    for drawn in signs_drawn(d.size, seed):
        extreme += int(np.count_nonzero(np.abs(drawn @ d) >= observed))
    return extreme / (RESAMPLES + 1)


def holm(p_values: ArrayLike, most_true: int | None = None) -> Floats:
    """P-values corrected for being many, by Holm's step-down method.

    Args:
        p_values: [m] p-values of one family of tests.
        most_true: how many of the hypotheses can be true at once, where logic allows fewer than m (Shaffer, 1986).

    Returns:
        float64 [m], in the same order: reject where it is at most alpha, and the chance of any false rejection is at
        most alpha.

    Raises:
        ValueError: a NaN or a value outside [0, 1] (its index is named).

    Source:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979; Shaffer, "Modified Sequentially Rejective
        Multiple Test Procedures", 1986.
    """
    p = checked_values(p_values, "p_values")
    wrong = np.flatnonzero((p < 0) | (p > 1))
    if wrong.size:
        raise ValueError(f"p_values[{wrong[0]}] is {p[wrong[0]]}; a p-value lies in [0, 1]")
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    factors = np.minimum(np.arange(p.size, 0, -1), p.size if most_true is None else most_true)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected
