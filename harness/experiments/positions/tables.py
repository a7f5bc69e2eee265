"""Tables of `positions`: the claims in short, and every measurement beside its prediction."""

from __future__ import annotations

import pandas as pd

from harness.core.records import Table
from harness.experiments._shared.claims_words import claims_tables

LABELS = {
    "equivalence_error": "model = position-aware chain, error",
    "excess_risk_ratio": "risk x 2n/(K(K-1) + L - 1)",
    "one_left": "fading memory: one token is left",
}
"""Metric -> what it is called where there is little room."""


def tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of the experiment, the headline first.

    Args:
        rows: of this experiment, of one run.
    """
    return claims_tables(rows, LABELS)
