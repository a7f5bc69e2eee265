"""Rows of one-step fidelity, the same for heads and for language models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from harness.core.rows import Rows
from harness.measures.fidelity import kl, top_token, total_variation
from harness.surrogates.base import Fact

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
INFINITE = "infinite: probability 0 for a token that the model gives some"
PRIOR_ITSELF = "infinite: the prior itself predicts kept-back texts best"


def fidelity_means(truth: FloatArray, predicted: FloatArray) -> dict[str, FloatArray]:
    """kl, total_variation and top_token, each [H], means over the contexts of truth and prediction [H, n, U]."""
    shape = truth.shape
    flat = truth.reshape(-1, shape[-1]), np.broadcast_to(predicted, shape).reshape(-1, shape[-1])
    measures = {"kl": kl, "total_variation": total_variation, "top_token": top_token}
    return {name: measure(*flat).reshape(shape[:-1]).mean(axis=-1) for name, measure in measures.items()}


def add_finite(rows: Rows, metric: str, value: float, **columns: Any) -> None:
    """Add a row; an infinite value is stored as missing, with the reason."""
    if np.isinf(value):
        rows.add(metric, None, missing=INFINITE, **columns)
    else:
        rows.add(metric, value, **columns)


def add_facts(rows: Rows, facts: Iterable[Fact], **columns: Any) -> None:
    """Add what a fit has found inside the training texts, such as the ridge that it has chosen.

    Args:
        rows: where they go.
        facts: of `Surrogate.extra_rows`.
        columns: of all of them.
    """
    for fact in facts:
        where = {**columns, **fact.where, "split": "train"}
        if np.isinf(fact.value):
            rows.add(fact.metric, None, missing=PRIOR_ITSELF if fact.metric == "ridge" else "infinite", **where)
        else:
            rows.add(fact.metric, fact.value, **where)
