"""What is minimised: H convex functions over the pairs that occur, one for each head."""

from __future__ import annotations

from dataclasses import dataclass

from ccmc._data.types import FloatArray


@dataclass(frozen=True, eq=False)
class Problem:
    """sum_rows w log sum_k m_k exp(theta_k) - sum wins theta + ridge/2 ||theta - prior||^2 for each head."""

    wins: FloatArray
    """[H, pairs] target mass of each pair."""
    prior: FloatArray
    """[H, pairs] logits that the ridge pulls to."""
    ridge: FloatArray
    """[H] strength of the pull."""
    weight: FloatArray
    """[1 or H, n] weight of each context."""
    tol: float
    """Stops at max |gradient| / (wins + ridge) <= tol."""
    max_passes: int
    """Most passes over its rows that a query may take."""
