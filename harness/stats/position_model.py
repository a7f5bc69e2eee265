"""References for forecasts of events: how often the event comes, and how often it comes at a position.

A forecast that does not beat a model of position alone knows nothing about the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.intervals import Floats

_STEPS = 100
_PRECISION = 1e-10
_PRIOR = 0.5  # an event and a non-event in addition, half each: finite weights where training texts hold one kind


def base_rate(events: ArrayLike) -> float:
    """Share of training steps with the event, (r + .5) / (n + 1): never 0 or 1.

    Args:
        events: [n] 0 or 1, of training texts.
    """
    y = np.asarray(events, dtype=np.float64)
    return float((y.sum() + 0.5) / (y.size + 1))


@dataclass(frozen=True)
class PositionModel:
    """A logistic model of an event by position alone, through t / span and log(1 + t).

    Attributes:
        weights: [3] constant, slope in t / span, slope in log(1 + t).
        span: the largest position of the training texts, at least 1.
    """

    weights: Floats
    span: float

    def predict(self, positions: ArrayLike) -> Floats:
        """[n] probabilities at positions; beyond the training texts those of their last position."""
        return _sigmoid(_features(np.minimum(np.asarray(positions, dtype=np.float64), self.span), self.span), self)


def fit_position(positions: ArrayLike, events: ArrayLike) -> PositionModel:
    """Fit the model to training texts by Newton's method.

    Half an event and half a non-event are added at the mean of the features, and both slopes have a standard normal
    prior, so that there is a finite maximum whatever the texts hold; both vanish against a few hundred steps.

    Args:
        positions: [n] of the steps, at least 0.
        events: [n] 0 or 1.

    Returns:
        The model.

    Raises:
        ValueError: no steps, other lengths, a negative position, or an event that is not 0 or 1.

    Source:
        McCullagh and Nelder, "Generalized Linear Models", 1989, section 4.4.
    """
    t, y = np.asarray(positions, dtype=np.float64), np.asarray(events, dtype=np.float64)
    if t.ndim != 1 or t.shape != y.shape or t.size == 0:
        raise ValueError(f"positions and events must be two equally long lists, got shapes {t.shape} and {y.shape}")
    if (t < 0).any() or not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("positions are not negative, and events are 0 or 1")
    span = max(float(t.max()), 1.0)
    x = _features(t, span)
    rows = np.concatenate([x, np.repeat(x.mean(axis=0)[None], 2, axis=0)])
    target, weight = np.concatenate([y, [1.0, 0.0]]), np.concatenate([np.ones_like(y), [_PRIOR, _PRIOR]])
    prior = np.array([0.0, 1.0, 1.0])
    w = np.zeros(3)

    def loss(at: Floats) -> float:
        z = rows @ at
        return float(weight @ (np.logaddexp(0.0, z) - target * z) + 0.5 * prior @ at**2)

    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(rows @ w, -500, 500)))
        slope = rows.T @ (weight * (p - target)) + prior * w
        step = np.linalg.solve((rows * (weight * p * (1 - p))[:, None]).T @ rows + np.diag(prior + 1e-12), slope)
        size = 1.0
        while loss(w - size * step) > loss(w) and size > 1e-8:
            size /= 2
        w = w - size * step
        if np.abs(slope).max() <= _PRECISION * weight.sum():
            break
    return PositionModel(w, span)


def _features(positions: Floats, span: float) -> Floats:
    return np.stack([np.ones_like(positions), positions / span, np.log1p(positions)], axis=1)


def _sigmoid(features: Floats, model: PositionModel) -> Floats:
    found: Floats = 1 / (1 + np.exp(-np.clip(features @ model.weights, -500, 500)))
    return found
