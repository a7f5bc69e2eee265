"""Divergences and top tokens against loops over the entries of a row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.measures.fidelity import in_context_mass, kl, kl_from_logs, top_token, total_variation

K = 4
weights = st.lists(st.integers(0, 3), min_size=K, max_size=K).filter(any)
masks = st.lists(st.booleans(), min_size=K, max_size=K)


def row(counts: list[int], mask: list[bool] | None = None) -> NDArray[np.float64]:
    """One distribution [1, K], proportional to counts inside the mask."""
    inside = np.array([counts], dtype=np.float64) * (1 if mask is None else np.array(mask))
    assume(inside.sum() > 0)
    inside /= inside.sum()
    return inside


def slow_kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    total = 0.0
    for a, b in zip(p[0], q[0], strict=True):
        if a > 0:
            total += math.inf if b == 0 else a * math.log(a / b)
    return total


@settings(deadline=None)
@given(weights, weights)
def test_divergences(p_counts: list[int], q_counts: list[int]) -> None:
    p, q = row(p_counts), row(q_counts)
    assert kl(p, q)[0] == pytest.approx(slow_kl(p, q), abs=1e-12)
    with np.errstate(divide="ignore"):
        assert kl_from_logs(p, np.log(q))[0] == kl(p, q)[0]
    distance = sum(max(a - b, 0.0) for a, b in zip(p[0], q[0], strict=True))
    assert total_variation(p, q)[0] == pytest.approx(distance, abs=1e-12)
    assert kl(p, q)[0] >= 2 * total_variation(p, q)[0] ** 2 - 1e-12  # Pinsker


@settings(deadline=None)
@given(weights, weights)
def test_the_top_token(p_counts: list[int], q_counts: list[int]) -> None:
    p, q = row(p_counts), row(q_counts)
    right = [j for j in range(K) if p_counts[j] == max(p_counts)]
    chosen = [j for j in range(K) if q_counts[j] == max(q_counts)]
    assert top_token(p, q)[0] == pytest.approx(sum(j in right for j in chosen) / len(chosen))
    assert top_token(p, p)[0] == 1


@settings(deadline=None)
@given(weights, weights, masks)
def test_a_context_is_the_same_as_dropping_the_other_columns(
    p_counts: list[int], q_counts: list[int], mask: list[bool]
) -> None:
    p, q, context = row(p_counts, mask), row(q_counts, mask), np.array([mask])
    inside = np.flatnonzero(mask)
    with np.errstate(divide="ignore"):
        logs = np.where(context, np.log(q), 3.0)
    polluted = np.where(context, q, np.nan)  # what stands outside the context is never looked at
    for measure in (kl, total_variation, top_token):
        assert measure(p, polluted, context)[0] == pytest.approx(measure(p[:, inside], q[:, inside])[0])
    assert kl_from_logs(p, logs, context)[0] == pytest.approx(kl(p, q)[0], abs=1e-12)


@settings(deadline=None)
@given(weights, masks)
def test_in_context_mass(counts: list[int], mask: list[bool]) -> None:
    p = row(counts)
    expected = sum(share for share, inside in zip(p[0], mask, strict=True) if inside)
    assert in_context_mass(p, np.array([mask]))[0] == pytest.approx(expected)


def test_closed_cases() -> None:
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    q = np.array([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(kl(p, q), [math.log(2), 0.0, math.inf])
    np.testing.assert_allclose(total_variation(p, q), [0.5, 0.0, 0.5])
    np.testing.assert_allclose(top_token(p, q), [0.5, 1.0, 1.0])


def test_logs_reach_below_the_smallest_float() -> None:
    assert kl_from_logs([[0.5, 0.5]], [[0.0, -2000.0]])[0] == pytest.approx(1000 - math.log(2))


def test_values_apart_by_round_off_are_tied() -> None:
    third = 1 / 3
    assert top_token([[third, third, third]], [[third, third + 1e-16, third]])[0] == 1
    assert top_token([[1.0, 0.0, 0.0]], [[third, third + 1e-16, third]])[0] == pytest.approx(third)


def test_rows_that_are_no_distributions_are_named() -> None:
    good, bad = np.full((3, 2), 0.5), np.full((3, 2), 0.5)
    bad[1] = [0.5, 0.6]
    with pytest.raises(ValueError, match="row 1 of q"):
        kl(good, bad)
    with pytest.raises(ValueError, match="row 1 of p"):
        top_token(bad, good)
    bad[1] = [0.5, np.nan]
    with pytest.raises(ValueError, match="row 1 of q"):
        total_variation(good, bad)
    bad[1] = [-0.5, 1.5]
    with pytest.raises(ValueError, match=r"row 1 of q.*minimum -0.5"):
        kl(good, bad)
    with pytest.raises(ValueError, match=r"row 0 of exp\(log_q\)"):
        kl_from_logs(good, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="row 2 of p"):
        kl(good, good, np.array([[True, True], [True, True], [True, False]]))
    with pytest.raises(ValueError, match="context must be bool"):
        kl(good, good, np.ones((3, 2)))
    with pytest.raises(ValueError, match="alike"):
        kl(good, good[:2])
    with pytest.raises(ValueError, match="log_q"):
        kl_from_logs(good, np.log(good[:2]))


def test_no_rows_are_no_error() -> None:
    assert kl(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0,)
    assert top_token(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0,)
