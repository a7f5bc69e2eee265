"""Tables of `trajectory`: the claims in short, and every measurement beside its prediction."""

from __future__ import annotations

import pandas as pd

from harness.core.records import Table
from harness.experiments._shared.claims_words import claims_tables

LABELS = {
    "loser_exponent": "loser's exponent, (2a - 1)/a",
    "no_mle": "share of paths without an MLE",
    "log_p_error": "median error of log P[1, :]",
    "error_rate": "slope of the error of log P in T",
    "pair_growth": "N_ij ~ t^(rho_i + rho_j - 1)",
    "won": "the only stable token leads",
    "both_win": "bistable: either token can lead",
    "coexistence_gap": "coexistence: share - predicted",
    "urn_moment_1": "urn: moment 1, uniform",
    "urn_moment_2": "urn: moment 2, uniform",
    "urn_moment_3": "urn: moment 3, uniform",
}
"""Metric -> what it is called where there is little room."""


def tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of the experiment, the headline first.

    Args:
        rows: of this experiment, of one run.
    """
    return claims_tables(rows, LABELS)
