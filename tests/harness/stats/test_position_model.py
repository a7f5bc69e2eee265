"""The references of hazards: agreement with a general optimiser, finite fits, recovery of a known law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from harness.stats.position_model import base_rate, fit_position


def test_the_base_rate_is_never_certain() -> None:
    assert base_rate([0, 0, 0]) == pytest.approx(0.125)
    assert base_rate([1] * 9) == pytest.approx(0.95)


def test_newton_finds_what_a_general_optimiser_finds() -> None:
    rng = np.random.default_rng(0)
    positions = rng.integers(0, 256, 400).astype(float)
    events = (rng.random(400) < 1 / (1 + np.exp(3 - positions / 64))).astype(float)
    span = positions.max()
    x = np.stack([np.ones(400), positions / span, np.log1p(positions)], axis=1)
    middle = x.mean(axis=0)

    def loss(w: np.ndarray) -> float:
        z = x @ w
        prior = 0.5 * (np.logaddexp(0, middle @ w) * 2 - middle @ w) + 0.5 * (w[1] ** 2 + w[2] ** 2)
        return float((np.logaddexp(0, z) - events * z).sum() + prior)

    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8})
    assert fit_position(positions, events).weights == pytest.approx(best.x, abs=1e-4)


def test_it_learns_how_a_hazard_rises() -> None:
    rng = np.random.default_rng(1)
    positions = np.tile(np.arange(0, 256, 8), 200).astype(float)
    chance = 0.05 + 0.4 * positions / 256
    model = fit_position(positions, rng.random(positions.size) < chance)
    assert model.predict(positions) == pytest.approx(chance, abs=0.04)
    assert model.predict([1e6]) == pytest.approx(model.predict([248.0]))


@pytest.mark.parametrize("kind", [0.0, 1.0])
def test_training_texts_of_one_kind_give_a_finite_model(kind: float) -> None:
    model = fit_position(np.arange(50.0), np.full(50, kind))
    assert np.isfinite(model.weights).all()
    assert np.abs(model.predict([0.0, 25.0, 49.0]) - kind).max() < 0.1
    assert fit_position([0.0], [kind]).predict([0.0]) == pytest.approx(abs(kind - 0.25), abs=1e-6)


def test_perfect_separation_gives_a_finite_model() -> None:
    model = fit_position(np.arange(40.0), np.arange(40) >= 20)
    assert np.isfinite(model.weights).all()
    assert model.predict([0.0])[0] < 0.2 < 0.8 < model.predict([39.0])[0]


@pytest.mark.parametrize(("positions", "events"), [([], []), ([1.0], [0, 1]), ([-1.0], [0]), ([1.0], [0.5])])
def test_wrong_arguments_are_refused(positions: list[float], events: list[float]) -> None:
    with pytest.raises(ValueError, match="positions"):
        fit_position(positions, events)
