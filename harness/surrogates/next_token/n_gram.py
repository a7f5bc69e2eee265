"""`n-gram`: longer induction. What followed the last one to three tokens before, backed off to counts."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy.optimize import minimize

from harness.core.registry import register
from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates._fitting.decoding import followers_of_tail
from harness.surrogates.base import NextTokenSurrogate
from harness.surrogates.observations import NextTokenObservations
from harness.surrogates.statistics import Statistics

ORDERS = (2, 3, 4)


def back_off(follow: list[FloatArray], counts: FloatArray, alpha: FloatArray) -> FloatArray:
    """Interpolate from the counts up to the longest history: [..., U].

    Args:
        follow: [..., U] each, what followed the end of the context before, the shortest history first.
        counts: [..., U] of the context.
        alpha: [orders] the mass of shorter histories.
    """
    p: FloatArray = counts / counts.sum(axis=-1, keepdims=True)
    for table, weight in zip(follow, alpha, strict=True):
        p = (table + weight * p) / (table.sum(axis=-1, keepdims=True) + weight)
    return p


@register.surrogate(
    "n-gram",
    of="next-token",
    sees=("counts", "query", "order"),
    parameters="3",
    rollout=True,
    rung=50,
    about="induction over the last one to three tokens, backed off to counts",
    cost="seconds",
    source="MacKay and Bauman Peto, A hierarchical Dirichlet language model, 1995",
)
class NGram(NextTokenSurrogate):
    """p_n(j) = (c_n(j) + alpha_n p_{n-1}(j)) / (c_n + alpha_n) for n = 2, 3, 4; p_1 is the share of the counts.

    c_n(j) counts how often j has followed the last n - 1 tokens so far. The alphas minimise the cross-entropy on the
    training texts.

    Source: MacKay and Bauman Peto, "A hierarchical Dirichlet language model", 1995, for the form.
    """

    alpha_: FloatArray

    def fit(self, observations: NextTokenObservations) -> Self:
        tables = [([of.followed(n - 1) for n in ORDERS], of.counts) for of in observations.statistics]
        held = [target > 0 for target in observations.targets]
        mass = np.concatenate([target[h] for target, h in zip(observations.targets, held, strict=True)])

        def loss(log_alpha: FloatArray) -> float:
            alpha = np.exp(log_alpha)
            parts = [back_off(f, c, alpha)[h] for (f, c), h in zip(tables, held, strict=True)]
            return float(-mass @ np.log(np.concatenate(parts)) / mass.sum())

        found = minimize(loss, np.zeros(len(ORDERS)), method="L-BFGS-B", bounds=[(-5.0, 7.0)] * len(ORDERS))
        self.alpha_ = np.exp(found.x)
        return self

    def predict(self, text: Text) -> FloatArray:
        of = Statistics(text)
        return back_off([of.followed(n - 1) for n in ORDERS], of.counts, self.alpha_)[None]

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        follow = [np.bincount(followers_of_tail(history, n - 1), minlength=len(types)).astype(float) for n in ORDERS]
        return back_off(follow, counts, self.alpha_)
