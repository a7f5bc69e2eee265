"""The mean field written from its formula: dm/ds = mu(m) - m, solved slowly and tightly by scipy."""

from __future__ import annotations

import numpy as np
from scipy import integrate


def stationary(P, m):
    """mu(m): the stationary distribution of K_m[i, j] = m_j P[i, j] / (P m)_i, as a linear system."""
    moves = P * m
    moves = moves / moves.sum(axis=1, keepdims=True)
    system = np.vstack([moves.T - np.eye(len(m)), np.ones(len(m))])
    return np.linalg.lstsq(system, np.append(np.zeros(len(m)), 1.0), rcond=None)[0]


def flow(P, m, at, rtol=1e-9):
    """Frequencies [times, n] at the log times `at` from frequencies m."""
    solved = integrate.solve_ivp(
        lambda s, m: stationary(P, m) - m, (0, at[-1]), m, t_eval=at, method="DOP853", rtol=rtol, atol=1e-13
    )
    return solved.y.T


def total_variation(a, b):
    return 0.5 * np.abs(a - b).sum(axis=-1)
