"""Tables of `sample-complexity`: the claims in short, and every measurement beside its prediction."""

from __future__ import annotations

import pandas as pd

from harness.core.records import Table
from harness.experiments._shared.claims_words import claims_tables

LABELS = {
    "excess_risk_ratio": "risk x 2n/(K(K-1))",
    "logit_error_ratio": "error x n/tr(H^+)",
    "slope_in_n": "slope of risk in n",
    "slope_in_K": "slope of risk in sqrt(K(K-1))",
    "slope_in_K_logits": "slope of error of logits in K",
    "training_gap": "training reaches the fit (nats)",
}
"""Metric -> what it is called where there is little room."""


def tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of the experiment, the headline first.

    Args:
        rows: of this experiment, of one run.
    """
    return claims_tables(rows, LABELS)
