"""Standard errors of fitted logits by resampling groups of observations.

Attention rows of one text depend on one another, and a chain only approximates them, so the information of a fit says
nothing of its spread. Groups (texts) are independent: each draw weighs them anew and fits again. Weights are those of
the Bayesian bootstrap (Rubin 1981), exponential with mean 1: no group ever leaves, so what the data determine, and
whether a maximum exists, is the same in every draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.types import FloatArray, IntArray
from ccmc._fit.problem import Problem
from ccmc.fit import MAX_PASSES, Fit, fit_mle, solve
from ccmc.observations import Observations, PairWins

# Draws fitted at a time, so that their weights [draws, n] stay small.
_BATCH = 16


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Spread of fitted logits over resampled groups, each logit measured from the mean of its component.

    Tables are [K, K] and NaN where the data determine nothing: pairs that do not occur, and tokens alone in their
    component. Where a query's tokens are one component and all K occur, this is the row-centred logit.
    """

    estimate: FloatArray
    """Logits of the fit to all groups with their own weights."""
    standard_errors: FloatArray
    """Standard deviation of the logits over the draws."""
    low: FloatArray
    """Lower ends of the intervals."""
    high: FloatArray
    """Upper ends of the intervals."""
    level: float
    """Coverage that the intervals are made for."""
    draws: int
    """How many times the groups were weighed and fitted."""
    converged: bool
    """Whether every fit reached the tolerance."""


def bootstrap(
    observations: Observations,
    groups: ArrayLike,
    *,
    seed: int,
    draws: int = 200,
    level: float = 0.95,
    prior: ArrayLike | None = None,
    ridge: float = 0.0,
    tol: float = 1e-6,
) -> Bootstrap:
    """Standard errors and intervals of the logits of `fit_mle` by a bootstrap over groups.

    Args:
        observations: hard or soft, with the target of each row.
        groups: int [n] the group of each observation; groups are independent of one another, rows inside need not be.
        seed: non-negative; the same seed gives the same answer, whatever the number of threads.
        draws: how many times to weigh the groups anew, at least 2.
        level: coverage of the intervals, between 0 and 1; percentiles of the draws.
        prior: as for `fit_mle`.
        ridge: as for `fit_mle`.
        tol: tolerance of each fit; far below any spread by default.

    Returns:
        Bootstrap.

    Raises:
        NoMaximumLikelihoodEstimate: as `fit_mle`.
        ValueError: groups do not fit the observations or are fewer than 2, draws or level are out of range, or only
            sums of targets are known.

    Source: Rubin 1981, for the weights.
    """
    group = _checked(observations, groups, draws, level)
    fit = fit_mle(observations, prior=prior, ridge=ridge, tol=tol)
    names, number = np.unique(group[observations.weights > 0], return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"a bootstrap needs at least 2 groups, got {len(names)}")
    pairs = fit.observations.contexts.numbered_pairs
    sample, converged = _sample(fit, number, len(names), seed, int(draws), tol)
    low, high = np.quantile(sample, [(1 - level) / 2, (1 + level) / 2], axis=0)
    compared = pairs.component_sizes() > 1

    def table(values: FloatArray) -> FloatArray:
        full = np.full((observations.contexts.vocab_size,) * 2, np.nan)
        full[pairs.query[compared], pairs.token[compared]] = values[compared]
        return full

    return Bootstrap(
        estimate=table(fit.pair_logits - pairs.component_means(fit.pair_logits)),
        standard_errors=table(sample.std(axis=0, ddof=1)),
        low=table(low),
        high=table(high),
        level=float(level),
        draws=int(draws),
        converged=converged and fit.converged,
    )


def _checked(observations: Observations, groups: ArrayLike, draws: int, level: float) -> IntArray:
    """The groups [n], or ValueError where an argument of the bootstrap is malformed."""
    if isinstance(observations.targets, PairWins):
        raise ValueError("a bootstrap needs the target of each row; observations from wins hold sums alone")
    group = np.asarray(groups)
    if group.shape != (len(observations),) or group.dtype.kind not in "iu":
        raise ValueError(f"groups must be integers [{len(observations)}], got {group.dtype} {list(group.shape)}")
    if int(draws) != draws or draws < 2:
        raise ValueError(f"draws must be an integer of at least 2, got {draws}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return group


def _sample(fit: Fit, number: IntArray, groups: int, seed: int, draws: int, tol: float) -> tuple[FloatArray, bool]:
    """[draws, pairs] logits fitted to newly weighed groups, from the means of their components; whether all converged.

    Args:
        fit: to all groups with their own weights.
        number: [n] number of the group of each of its observations.
        groups: how many there are.
        seed: of the weights.
        draws: number of draws.
        tol: tolerance of each fit.
    """
    used = fit.observations
    pairs = used.contexts.numbered_pairs
    row, token, mass, _ = used.entries
    place = pairs.number(used.contexts.query[row], token)
    # Fits start where the fit of all groups ended; without a ridge the prior is of no other use.
    centre = fit.pair_logits if fit.prior is None or fit.ridge == 0 else fit.prior[pairs.query, pairs.token]
    if fit.prior is None and fit.ridge > 0:
        centre = np.zeros(len(pairs.token))
    start = fit.pair_logits - centre
    rng = np.random.default_rng(seed)
    logits, converged = [], True
    for first in range(0, draws, _BATCH):
        size = min(_BATCH, draws - first)
        share = rng.exponential(size=(size, groups))
        share *= groups / share.sum(axis=1, keepdims=True)
        weight = share[:, number] * used.weights
        wins: FloatArray = np.stack(
            [np.bincount(place, weights=mass * w[row], minlength=len(pairs.token)) for w in weight]
        ).astype(np.float64)
        prior, ridge = np.tile(centre, (size, 1)), np.full(size, fit.ridge)
        found = solve(used.contexts, Problem(wins, prior, ridge, weight, tol, MAX_PASSES), np.tile(start, (size, 1)))
        converged &= bool(found.converged.all())
        logits += [values - pairs.component_means(values) for values in centre + found.delta]
    return np.array(logits), converged
