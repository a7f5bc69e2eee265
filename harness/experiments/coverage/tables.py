"""Tables of `coverage`: the claims in short, and every measurement beside its prediction."""

from __future__ import annotations

import pandas as pd

from harness.core.records import Table
from harness.experiments._shared.claims_words import claims_tables

LABELS = {
    "nullity_gap": "null space = spare components",
    "free_directions": "dimension of the solution set",
    "identified_error_ratio": "identified logits: error / tr(H^+)",
    "excess_risk_ratio": "excess risk x 2n / identified",
    "free_error_ratio": "free directions: error / own square",
    "free_moved": "free directions stay at 0",
    "trained_gap": "trained model = fit, standard errors",
}
"""Metric -> what it is called where there is little room."""


def tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of the experiment, the headline first.

    Args:
        rows: of this experiment, of one run.
    """
    return claims_tables(rows, LABELS)
