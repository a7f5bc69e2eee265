"""Tables of `equivalence`: the claims in short, and every measurement beside its prediction."""

from __future__ import annotations

import pandas as pd

from harness.core.records import Table
from harness.experiments._shared.claims_words import claims_tables

LABELS = {
    "equivalence_error_eps": "model = chain, error / (eps cond(E))",
    "round_trip_error": "W -> P -> W -> P gives P again",
    "negative_share_outside": "share made negative by round-off",
    "lost_mass": "mass lost where d < K",
}
"""Metric -> what it is called where there is little room."""


def tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of the experiment, the headline first.

    Args:
        rows: of this experiment, of one run.
    """
    return claims_tables(rows, LABELS)
