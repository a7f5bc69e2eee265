"""Figures over pairs of prompts: what another prompt's continuation scores, how far two laws over prompts are apart.

Each prompt is in many pairs, so that pairs are not independent: their mean is a U-statistic, and taking rows of pairs
for independent makes intervals half as long as they must be. Pairs of one group are left out: what their prompts share
would make them alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats.resampling import RESAMPLES, Floats, signs_drawn

_ROUNDING = 1e-12


def pair_contributions(scores: ArrayLike, groups: ArrayLike | None = None) -> Floats:
    """One number per prompt whose mean is the mean over pairs, and which vary as that mean does.

    Args:
        scores: [n, n], in row i and column j what the continuation of prompt i scores on prompt j, not symmetric as a
            rule; NaN where a pair was not scored. The diagonal does not count.
        groups: [n] what prompts share; pairs within a group do not count.

    Returns:
        float64 [n] contributions: `grouped.group_mean` of them, with the same groups, gives the figure with its
        interval; of a difference, subtract them from the other figure's values prompt by prompt.

    Raises:
        ValueError: no matrix, an infinity, other groups, or no pair.

    Source:
        Hoeffding, "A Class of Statistics with Asymptotically Normal Distribution", 1948 (the projection).
    """
    values, used, _ = _pairs(scores, groups)
    mean = float(values[used].mean())
    rest = np.where(used, values - mean, 0.0)
    contributions: Floats = mean + (rest.sum(axis=0) + rest.sum(axis=1)) * len(rest) / used.sum()
    return contributions


@dataclass(frozen=True)
class LawDistance:
    """How far two laws over prompts are apart, whichever prompt a value belongs to.

    Attributes:
        value: the energy distance, 2 E d(X, Y) - E d(X, X') - E d(Y, Y') over different prompts; 0 for equal laws,
            of which an estimate can be negative.
        p: of equal laws, one-sided, by exchanging the sides of whole groups at random.
        n, groups: prompts and their groups.
    """

    value: float
    p: float
    n: int
    groups: int


def law_distance(
    distance_xy: ArrayLike, distance_xx: ArrayLike, distance_yy: ArrayLike, groups: ArrayLike | None, seed: int
) -> LawDistance:
    """The question "how much": do surrogate and model have the same law over prompts?

    Args:
        distance_xy: [n, n] mean distance of the surrogate's seeds on prompt i and the model's on prompt j.
        distance_xx, distance_yy: [n, n] the same among the surrogate's and among the model's; the diagonals do not
            count.
        groups: [n] what prompts share; None where they share nothing.
        seed: of the random exchanges.

    Returns:
        The distance, unbiased, with a p-value that is never 0.

    Raises:
        ValueError: as `pair_contributions`, or matrices of other sizes.

    Source:
        Szekely and Rizzo, "Energy statistics: A class of statistics based on distances", 2013. Exchanging x_i and y_i
        turns the sign of row and column i of d_xy + d_yx - d_xx - d_yy.
    """
    xy, xx, yy = (np.asarray(one, dtype=np.float64) for one in (distance_xy, distance_xx, distance_yy))
    if not xy.shape == xx.shape == yy.shape:
        raise ValueError(f"distances of shapes {xy.shape}, {xx.shape} and {yy.shape}: the prompts must be the same")
    values, used, place = _pairs(xy + xy.T - xx - yy, groups)
    kernel = np.where(used, values, 0.0)
    count = int(place.max()) + 1
    # summed over the prompts of two groups: a group is exchanged as a whole
    member = np.zeros((count, place.size))
    member[place, np.arange(place.size)] = 1.0
    form = member @ kernel @ member.T
    observed = float(form.sum())
    edge = observed - _ROUNDING * float(np.abs(form).sum())
    extreme = 1 + sum(_at_least(edge, signs.astype(np.float32), form) for signs in signs_drawn(count, seed))
    return LawDistance(observed / int(used.sum()), extreme / (RESAMPLES + 1), place.size, count)


def _at_least(edge: float, signs: NDArray[np.float32], form: Floats) -> int:
    """How many rows of signs give the quadratic form a value of at least the edge.

    In half the precision, which takes half the time, but for rows whose value is too near the edge for that.
    """
    size = float(np.abs(form).max())
    if not size > 0:
        return len(signs) * (edge <= 0)
    scaled = (form / size).astype(np.float32)
    over = ((signs @ scaled) * signs).sum(axis=1, dtype=np.float64) - edge / size
    error = 4 * len(form) * float(np.finfo(np.float32).eps) * float(np.abs(scaled).sum(dtype=np.float64))
    near = signs[np.abs(over) <= error].astype(np.float64)
    return int(np.count_nonzero(over > error)) + int(np.count_nonzero(((near @ form) * near).sum(axis=1) >= edge))


def _pairs(scores: ArrayLike, groups: ArrayLike | None) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Values, which pairs count, and the number of each prompt's group."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(f"scores of pairs must be a square matrix, got shape {values.shape}")
    names = np.arange(len(values)) if groups is None else np.asarray(groups)
    if names.shape != (len(values),):
        raise ValueError(f"{len(values)} prompts, but groups of shape {names.shape}")
    place = np.unique(names, return_inverse=True)[1].astype(np.int64)
    used = (place[:, None] != place[None, :]) & ~np.isnan(values)
    if not used.any():
        raise ValueError("no pair of prompts of different groups has a score")
    if np.isinf(values[used]).any():
        raise ValueError("a score of a pair is infinite")
    return values, used, place
