"""`in-context-bigram`: induction. What followed this query before in this context, backed off to counts."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy.optimize import minimize_scalar

from harness.core.registry import register
from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates.base import NextTokenSurrogate
from harness.surrogates.observations import NextTokenObservations
from harness.surrogates.statistics import Statistics


def _mix(follow: FloatArray, counts: FloatArray, alpha: float) -> FloatArray:
    share = counts / counts.sum(axis=-1, keepdims=True)
    mixed: FloatArray = (follow + alpha * share) / (follow.sum(axis=-1, keepdims=True) + alpha)
    return mixed


@register.surrogate(
    "in-context-bigram",
    of="next-token",
    sees=("counts", "query", "order"),
    parameters="1",
    rollout=True,
    rung=40,
    default=True,
    about="induction: what followed this query before in this context, backed off to counts",
    cost="seconds",
    source="Olsson et al., In-context Learning and Induction Heads, 2022",
)
class InContextBigram(NextTokenSurrogate):
    """p(j) = (c_ij + alpha m_j / |m|) / (c_i + alpha), with c_ij the times that j has followed the query i so far.

    alpha, the weight of the counts, minimises the cross-entropy on the training texts; it is the mass of a Dirichlet
    prior with the counts as its mean.
    """

    alpha_: float

    def fit(self, observations: NextTokenObservations) -> Self:
        texts = [
            (of.followed(1), of.counts, target)
            for of, target in zip(observations.statistics, observations.targets, strict=True)
        ]

        def loss(log_alpha: float) -> float:
            alpha, total = float(np.exp(log_alpha)), 0.0
            for follow, counts, target in texts:
                held = target > 0
                total -= float(np.sum(target[held] * np.log(_mix(follow, counts, alpha)[held])))
            return total

        self.alpha_ = float(np.exp(minimize_scalar(loss, bounds=(-5.0, 7.0), method="bounded").x))
        return self

    def predict(self, text: Text) -> FloatArray:
        return _mix(Statistics(text).followed(1), text.counts, self.alpha_)[None]

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        after = history[1:][history[:-1] == history[-1]]
        return _mix(np.bincount(after, minlength=len(types)).astype(float), counts, self.alpha_)
