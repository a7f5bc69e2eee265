"""`n-gram`: longer induction. What followed the last one to three tokens before, backed off to counts."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy.optimize import minimize

from harness.core.registry import register
from harness.data.texts import Text
from harness.surrogates._fitting.decoding import followers_of_tail
from harness.surrogates.base import FloatArray, IntArray, Observations, Surrogate

ORDERS = (2, 3, 4)


def followers(text: Text, length: int) -> FloatArray:
    """[n, U] how often each type has followed the last `length` tokens before, within the context of each query."""
    size = len(text.types)
    table: dict[tuple[int, ...], FloatArray] = {}
    rows = np.zeros((len(text), size))
    row_at = {int(position) - text.first: row for row, position in enumerate(text.positions)}
    columns = text.key_index.tolist()
    for index, column in enumerate(columns):
        if index >= length:
            table.setdefault(tuple(columns[index - length : index]), np.zeros(size))[column] += 1.0
        if index in row_at and index + 1 >= length:
            found = table.get(tuple(columns[index + 1 - length : index + 1]))
            if found is not None:
                rows[row_at[index]] = found
    return rows


def _back_off(follow: list[FloatArray], counts: FloatArray, alpha: FloatArray) -> FloatArray:
    """Interpolate from the counts up to the longest history."""
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
    rung=60,
    about="induction over the last one to three tokens, backed off to counts",
    source="MacKay and Bauman Peto, A hierarchical Dirichlet language model, 1995",
)
class NGram(Surrogate):
    """p_n(j) = (c_n(j) + alpha_n p_{n-1}(j)) / (c_n + alpha_n) for n = 2, 3, 4; p_1 is the share of the counts.

    c_n(j) counts how often j has followed the last n - 1 tokens so far. The alphas minimise the cross-entropy on the
    training texts.

    Source: MacKay and Bauman Peto, "A hierarchical Dirichlet language model", 1995, for the form.
    """

    alpha_: FloatArray

    def fit(self, observations: Observations) -> Self:
        tables = [([followers(t, n - 1) for n in ORDERS], t.counts) for t in observations.texts]
        held = [target > 0 for target in observations.targets]
        mass = np.concatenate([target[h] for target, h in zip(observations.targets, held, strict=True)])

        def loss(log_alpha: FloatArray) -> float:
            alpha = np.exp(log_alpha)
            parts = [_back_off(f, c, alpha)[h] for (f, c), h in zip(tables, held, strict=True)]
            return float(-mass @ np.log(np.concatenate(parts)) / mass.sum())

        found = minimize(loss, np.zeros(len(ORDERS)), method="L-BFGS-B", bounds=[(-5.0, 7.0)] * len(ORDERS))
        self.alpha_ = np.exp(found.x)
        return self

    def predict(self, text: Text) -> FloatArray:
        return _back_off([followers(text, n - 1) for n in ORDERS], text.counts, self.alpha_)[None]

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        follow = [np.bincount(followers_of_tail(history, n - 1), minlength=len(types)).astype(float) for n in ORDERS]
        return _back_off(follow, counts, self.alpha_)
