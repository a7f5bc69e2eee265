"""The compiled exponential and logarithm against numpy's."""

from __future__ import annotations

import numba
import numpy as np
from float32 import FUNCTION, assert_close32

from harness.attention.fast_exp import exp32, exp64, log32


@numba.njit
def over64(values, out):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        out[i] = exp64(values[i])


@numba.njit
def over32(values, out):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        out[i] = exp32(values[i])


@numba.njit
def log_over32(values, out):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        out[i] = log32(values[i])


def test_float32_is_right_to_round_off_and_nothing_far_below() -> None:
    values = -np.linspace(0.0, 87.0, 100_001, dtype=np.float32)
    found = np.empty_like(values)
    over32(values, found)
    expected = np.exp(values.astype(float))
    assert_close32(found, expected, scale=expected, operations=FUNCTION)
    lost = np.array([-87.5, -1e30, -np.inf], np.float32)
    over32(lost, lost)
    assert (lost == 0.0).all()


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


def test_logarithm_is_right_to_round_off() -> None:
    values = np.concatenate([np.geomspace(1.2e-38, 3e38, 100_001), np.linspace(0.5, 2.0, 100_001)]).astype(np.float32)
    found = np.empty_like(values)
    log_over32(values, found)
    expected = np.log(values.astype(float))
    # the exponent times log(2), plus a series for a mantissa between sqrt(1/2) and sqrt(2)
    assert_close32(found, expected, scale=np.abs(expected) + 0.35, operations=FUNCTION)
    nothing = np.array([0.0, 1e-45], np.float32)
    log_over32(nothing, nothing)
    least = np.log(np.finfo(np.float32).tiny)
    assert_close32(nothing, least, scale=least, operations=FUNCTION)
