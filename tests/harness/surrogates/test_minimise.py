"""Many minimisations at once: known answers, scipy's answers, and no influence of one on another."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from harness.surrogates._fitting.minimise import minimise_each

RNG = np.random.default_rng(0)
CURVATURE = RNG.uniform(0.1, 10.0, (4, 30))
CENTRE = RNG.normal(size=(4, 30))


def quadratic(which: Any, x: Any) -> tuple[Any, Any]:
    away = x - CENTRE[which]
    return 0.5 * (CURVATURE[which] * away**2).sum(1), CURVATURE[which] * away


def softplus(which: Any, x: Any) -> tuple[Any, Any]:
    """Far from quadratic: an unscaled start overshoots."""
    z = 4.0 * (x - CENTRE[which])
    value = (np.logaddexp(0.0, z) - 0.3 * z).sum(1) + 0.5 * 1e-3 * (x**2).sum(1)
    return value, 4.0 * expit(z) - 1.2 + 1e-3 * x


def test_centres_of_quadratics_are_found() -> None:
    found = minimise_each(quadratic, np.zeros((4, 30)), tol=1e-8, fall=0.0, most=500)
    np.testing.assert_allclose(found, CENTRE, atol=1e-6)


def test_it_finds_what_scipy_finds() -> None:
    start = np.full((4, 30), 6.0)
    found = minimise_each(softplus, start, tol=1e-7, fall=0.0, most=500)
    for one in range(4):
        which = np.array([one])
        wanted = minimize(
            lambda x, which=which: [v[0] for v in softplus(which, x[None])], start[one], jac=True, tol=1e-12
        )
        np.testing.assert_allclose(found[one], wanted.x, atol=1e-5)


def test_functions_do_not_touch_each_other() -> None:
    start = RNG.normal(size=(4, 30))
    start[2] = CENTRE[2]  # done at once
    together = minimise_each(softplus, start, tol=1e-4, fall=1e-9, most=50)
    for one in range(4):
        alone = minimise_each(lambda _, x, one=one: softplus(np.array([one]), x), start[one : one + 1], 1e-4, 1e-9, 50)
        np.testing.assert_array_equal(together[one], alone[0])


def test_it_stops_at_the_last_step_allowed_and_never_gets_worse() -> None:
    start = np.full((4, 30), 6.0)
    values = [softplus(np.arange(4), minimise_each(softplus, start, 0.0, 0.0, most))[0] for most in (1, 2, 4, 8, 300)]
    assert (np.diff(values, axis=0) <= 0).all()
    assert (values[0] < softplus(np.arange(4), start)[0]).all()
