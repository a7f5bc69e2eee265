"""The first position as a state of its own: how much it gets, fitted on top of what the weights say.

A row with its sink is (s, (1 - s) rest). The log odds of s are modelled as a + c times the log odds read off the
weights plus an effect of the query token, by maximum likelihood with a ridge towards a = 0, c = 1 and no effect, per
head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from harness.surrogates.base import FloatArray, IntArray
from harness.texts import Text

UNSEEN = -1e29  # log odds below it mean that a query does not see the first position
RIDGE, TOKEN_RIDGE = 1.0, 10.0


@dataclass(frozen=True)
class SinkFit:
    """Fitted log odds of the first position.

    Attributes:
        a, c: [H] intercept and slope.
        effect: [H, K] of each query token.
    """

    a: FloatArray
    c: FloatArray
    effect: FloatArray


def fit_sink(
    texts: Sequence[Text], odds: Sequence[FloatArray], prior: Sequence[FloatArray], vocab_size: int
) -> SinkFit:
    """Fit the odds of the first position.

    Args:
        texts: training texts.
        odds: per text [H, n], the model's log odds of the first position against all others.
        prior: per text [H, n], those read off the weights.
        vocab_size: K.
    """
    query = np.concatenate([text.types[text.query] for text in texts])
    of_model, of_prior = np.concatenate(odds, axis=1), np.concatenate(prior, axis=1)
    seen = of_model[0] > UNSEEN  # a window hides the first position from all heads alike
    query, share, given = query[seen], expit(of_model[:, seen].astype(float)), of_prior[:, seen].astype(float)
    found = [_fit_head(query, s, x, vocab_size) for s, x in zip(share, given, strict=True)]
    return SinkFit(np.array([f[0] for f in found]), np.array([f[1] for f in found]), np.stack([f[2] for f in found]))


def fit_level(odds: Sequence[FloatArray], normaliser: FloatArray) -> FloatArray:
    """[H] the log weight of the first position that gives it its mean share, where it is the same for all queries.

    Args:
        odds: per text [H, n], the model's log odds of the first position against all others.
        normaliser: [H, sum of n] log of the total weight of all other positions.
    """
    of_model = np.concatenate(odds, axis=1).astype(float)
    seen = of_model[0] > UNSEEN
    share, rest = expit(of_model[:, seen]).mean(axis=1), normaliser[:, seen]
    low, high = np.full(len(rest), -100.0), np.full(len(rest), 100.0)
    for _ in range(60):  # the share rises with the level: halve the bracket
        middle = 0.5 * (low + high)
        above = expit(middle[:, None] - rest).mean(axis=1) > share
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    level: FloatArray = 0.5 * (low + high)
    return level


def _fit_head(
    query: IntArray, share: FloatArray, given: FloatArray, vocab_size: int
) -> tuple[float, float, FloatArray]:
    if len(query) == 0:
        return 0.0, 1.0, np.zeros(vocab_size)
    middle, spread = float(given.mean()), max(float(given.std()), 1e-3)
    rows = np.bincount(query, minlength=vocab_size)
    # in units in which the curvature of every parameter is of order 1
    scale = 1.0 / np.sqrt(np.concatenate([[len(query), len(query)], rows + TOKEN_RIDGE]))

    def read(x: FloatArray) -> tuple[float, float, FloatArray]:
        """Intercept at the middle, slope, effects."""
        return float(x[0] * scale[0]), 1.0 + float(x[1] * scale[1]) / spread, x[2:] * scale[2:]

    def objective(x: FloatArray) -> tuple[float, FloatArray]:
        level, slope, effect = read(x)
        eta = level + slope * (given - middle) + effect[query]
        pull = expit(eta) - share
        value = float(np.logaddexp(0.0, eta).sum() - share @ eta)
        value += 0.5 * RIDGE * (slope - 1.0) ** 2 + 0.5 * TOKEN_RIDGE * float(effect @ effect)
        gradient = np.concatenate(
            [
                [pull.sum(), (pull @ (given - middle) + RIDGE * (slope - 1.0)) / spread],
                np.bincount(query, weights=pull, minlength=vocab_size) + TOKEN_RIDGE * effect,
            ]
        )
        return value, gradient * scale

    start = np.zeros(2 + vocab_size)
    start[0] = middle / scale[0]
    level, slope, effect = read(minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 60}).x)
    return level - slope * middle, slope, effect
