"""The first position as a state of its own: how much it gets, fitted on top of what the weights say.

A row with its sink is (s, (1 - s) rest). The log odds of s are modelled as a + c times the log odds read off the
weights plus an effect of the query token, by maximum likelihood with a ridge towards a = 0, c = 1 and no effect, per
head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates._fitting.minimise import minimise_each

UNSEEN = -1e29  # log odds below it mean that a query does not see the first position
RIDGE, TOKEN_RIDGE = 1.0, 10.0
TOL = 1e-5  # of the fits, on the largest gradient entry in units of its standard deviation


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
    if len(query) == 0:
        heads = len(of_model)
        return SinkFit(np.zeros(heads), np.ones(heads), np.zeros((heads, vocab_size)))
    return _fit(query, share, given, vocab_size)


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


def _fit(query: IntArray, share: FloatArray, given: FloatArray, vocab_size: int) -> SinkFit:
    """Fit all heads at once: query [n], share [H, n], given [H, n] log odds read off the weights."""
    middle, spread = given.mean(1), np.maximum(given.std(1), 1e-3)
    off = (given - middle[:, None]) / spread[:, None]  # the slope per spread moves the level no more
    rows = np.bincount(query, minlength=vocab_size)
    # in units in which the curvature of every parameter is of order 1
    scale = 1.0 / np.sqrt(np.concatenate([[len(query), len(query)], rows + TOKEN_RIDGE]))

    def objective(which: IntArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        y, of = x * scale, off[which]
        steeper = y[:, 1] / spread[which]  # slope less 1
        eta = y[:, :1] + (spread[which] + y[:, 1])[:, None] * of + y[:, 2:][:, query]
        pull = expit(eta) - share[which]
        value = np.logaddexp(0.0, eta).sum(1) - (share[which] * eta).sum(1)
        value += 0.5 * RIDGE * steeper**2 + 0.5 * TOKEN_RIDGE * np.square(y[:, 2:]).sum(1)
        gradient = TOKEN_RIDGE * y
        gradient[:, 0] = pull.sum(1)
        gradient[:, 1] = (pull * of).sum(1) + RIDGE * steeper / spread[which]
        for row, weights in enumerate(pull):
            gradient[row, 2:] += np.bincount(query, weights=weights, minlength=vocab_size)
        return value, gradient * scale

    start = np.zeros((len(share), 2 + vocab_size))
    start[:, 0] = middle / scale[0]
    y = minimise_each(objective, start, tol=TOL * np.sqrt(len(query)), fall=1e-9, most=100) * scale
    c = 1.0 + y[:, 1] / spread
    return SinkFit(y[:, 0] - c * middle, c, y[:, 2:])
