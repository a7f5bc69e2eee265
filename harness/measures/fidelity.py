"""How close a predicted distribution is to the real one, row by row.

Rows are contexts, columns are tokens. `context` marks the tokens that a row may speak about, those in its context: all
else is left out, of sums and of the top token alike. A row must sum to 1 over what is left, so restricting a language
model's distribution to the context means renormalising it first, and reporting `in_context_mass` beside the result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.core.registry import register

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SUM_TOLERANCE = 1e-6
TIE_TOLERANCE = 1e-12


@register.measure(
    "kl",
    unit="nats",
    better="lower",
    absolute=1e-5,
    headline_of="generation",
    label="KL",
    about="KL divergence from the model to the surrogate, nats per query, over tokens of the context",
)
def kl(p: ArrayLike, q: ArrayLike, context: ArrayLike | None = None) -> Floats:
    """Kullback-Leibler divergence of each prediction from its target, sum of p log(p / q).

    Args:
        p: [n, K] target distributions.
        q: [n, K] predicted distributions.
        context: bool [n, K], the tokens to look at; all where none is given.

    Returns:
        float64 [n], nats: 0 log 0 counts 0, and a row with q = 0 < p is inf. Round-off below 0 is cut to 0.

    Raises:
        ValueError: shapes differ, or a row is no distribution (the row is named).
    """
    target, prediction, mask = _pair(p, q, context)
    _check_rows(prediction, "q")
    with np.errstate(divide="ignore"):
        return _kl(target, np.log(prediction), mask)


def kl_from_logs(p: ArrayLike, log_q: ArrayLike, context: ArrayLike | None = None) -> Floats:
    """The same as `kl` from log probabilities, exact where q itself would underflow to 0.

    Args:
        p: [n, K] target distributions.
        log_q: [n, K] logarithms of the predicted distributions, -inf where q = 0.
        context: bool [n, K], the tokens to look at; all where none is given.

    Returns:
        float64 [n], nats, as `kl`.

    Raises:
        ValueError: shapes differ, or a row is no distribution (the row is named).
    """
    target, _, mask = _pair(p, p, context)
    logs = np.asarray(log_q, dtype=np.float64)
    if logs.shape != target.shape:
        raise ValueError(f"p has shape {target.shape}, log_q has {logs.shape}")
    logs = np.where(mask, logs, -np.inf)
    with np.errstate(over="ignore"):
        _check_rows(np.exp(logs), "exp(log_q)")
    return _kl(target, logs, mask)


@register.measure(
    "total_variation",
    unit="share",
    better="lower",
    absolute=1e-5,
    label="total variation",
    about="total variation distance between model and surrogate",
)
def total_variation(p: ArrayLike, q: ArrayLike, context: ArrayLike | None = None) -> Floats:
    """Total variation distance of each prediction from its target, half the sum of |p - q|.

    Args:
        p: [n, K] target distributions.
        q: [n, K] predicted distributions.
        context: bool [n, K], the tokens to look at; all where none is given.

    Returns:
        float64 [n], in [0, 1].

    Raises:
        ValueError: shapes differ, or a row is no distribution (the row is named).
    """
    target, prediction, _ = _pair(p, q, context)
    _check_rows(prediction, "q")
    distance: Floats = 0.5 * np.abs(target - prediction).sum(axis=1)
    return np.minimum(distance, 1.0)


@register.measure(
    "top_token",
    unit="share",
    better="higher",
    absolute=1e-4,
    label="same top token",
    about="share of queries whose most attended or likeliest token is the same",
)
def top_token(p: ArrayLike, q: ArrayLike, context: ArrayLike | None = None) -> Floats:
    """Chance that the prediction's top token is a top token of the target.

    Values within a factor 1 - 1e-12 of the largest are tied with it. Ties of the target are all right answers; ties of
    the prediction are broken at random: with A and B the top tokens of p and q the score is |A & B| / |B|. So q = p
    scores 1 with ties or without, and a flat prediction over m tokens earns 1/m of a target with one top token, not
    the full point that counting any tie as right would give it.

    Args:
        p: [n, K] target distributions.
        q: [n, K] predicted distributions.
        context: bool [n, K], the tokens to look at; all where none is given.

    Returns:
        float64 [n]; 0 or 1 where the prediction has no ties.

    Raises:
        ValueError: shapes differ, or a row is no distribution (the row is named).
    """
    target, prediction, _ = _pair(p, q, context)
    _check_rows(prediction, "q")
    right, chosen = _top(target), _top(prediction)
    return np.asarray((right & chosen).sum(axis=1) / chosen.sum(axis=1), dtype=np.float64)


@register.measure(
    "in_context_mass",
    unit="share",
    label="mass in context",
    about="probability that the model gives to tokens of its context",
)
def in_context_mass(p: ArrayLike, context: ArrayLike) -> Floats:
    """Probability that a distribution gives to the tokens of its context: what a CCMC can speak about.

    Args:
        p: [n, K] distributions over the whole vocabulary.
        context: bool [n, K], the tokens of the context.

    Returns:
        float64 [n], in [0, 1].

    Raises:
        ValueError: shapes differ, or a row is no distribution (the row is named).
    """
    target, _, _ = _pair(p, p, None)
    mask = _mask(context, target.shape)
    mass: Floats = np.where(mask, target, 0.0).sum(axis=1)
    return np.minimum(mass, 1.0)


def _pair(p: ArrayLike, q: ArrayLike, context: ArrayLike | None) -> tuple[Floats, Floats, Mask]:
    """Target and prediction with 0 outside the context, and the mask; the target is checked."""
    target, prediction = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if target.ndim != 2 or target.shape != prediction.shape:
        raise ValueError(f"p and q must be [n, K] alike, got {target.shape} and {prediction.shape}")
    mask = np.ones(target.shape, dtype=np.bool_) if context is None else _mask(context, target.shape)
    if context is not None:
        target, prediction = np.where(mask, target, 0.0), np.where(mask, prediction, 0.0)
    _check_rows(target, "p")
    return target, prediction, mask


def _mask(context: ArrayLike, shape: tuple[int, ...]) -> Mask:
    mask = np.asarray(context)
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise ValueError(f"context must be bool {list(shape)}, got {mask.dtype} {list(mask.shape)}")
    return mask


def _check_rows(rows: Floats, name: str) -> None:
    sums = rows.sum(axis=1)
    # Written so that a NaN fails, too.
    wrong = ~((np.abs(sums - 1.0) <= SUM_TOLERANCE) & (rows >= 0).all(axis=1))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"row {row} of {name} is no distribution over its context: sum {sums[row]:.9g}, "
            f"minimum {rows[row].min(initial=np.inf):.3g}; renormalise it in float64"
        )


def _kl(target: Floats, log_prediction: Floats, mask: Mask) -> Floats:
    held = mask & (target > 0)
    # Where the target has no mass the term is 0 whatever the prediction, so neither log is looked at.
    log_ratio = np.log(np.where(held, target, 1.0)) - np.where(held, log_prediction, 0.0)
    return np.asarray(np.maximum((target * log_ratio).sum(axis=1), 0.0), dtype=np.float64)


def _top(rows: Floats) -> Mask:
    return np.asarray(rows >= rows.max(axis=1, keepdims=True) * (1.0 - TIE_TOLERANCE), dtype=np.bool_)
