"""The compiled exponential against numpy's."""

from __future__ import annotations

import numba
import numpy as np

from harness.fast_exp import exp64


@numba.njit
def over64(values, out):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        out[i] = exp64(values[i])


def test_float64_is_right_to_round_off() -> None:
    values = -np.concatenate([np.linspace(0.0, 60.0, 100_001), np.geomspace(1e-300, 700.0, 5_001), [0.0]])
    found = np.empty_like(values)
    over64(values, found)
    np.testing.assert_allclose(found, np.exp(values), rtol=4e-15)
    assert found[-1] == 1.0


def test_what_is_far_below_is_all_but_nothing() -> None:
    values, found = np.array([-701.0, -1e30, -np.inf]), np.empty(3)
    over64(values, found)
    assert ((found > 0) & (found < 1e-300)).all()
