"""What the figures of the paper's experiments share: rows of single repetitions, and means over them."""

from __future__ import annotations

import pandas as pd

from harness.core.records import Interval
from harness.core.rows import with_factors
from harness.experiments._shared.claims import POOLED, mean


def repetitions_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of single repetitions, with the factors of `condition` as columns of their own."""
    return with_factors(rows[rows["split"].isna() | (rows["split"] != POOLED)])


def pooled_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The pooled rows, with the factors of `condition` as columns of their own."""
    return with_factors(rows[rows["split"] == POOLED])


def over_repetitions(frame: pd.DataFrame, **where: object) -> Interval:
    """Mean with its interval, over the rows that match; rows without a value are left out."""
    for column, wanted in where.items():
        frame = frame[frame[column] == wanted]
    return mean(frame["value"].dropna().to_numpy(dtype=float))


def any_pooled(rows: pd.DataFrame) -> bool:
    """Has the run come to its pooling? Before that there is nothing to draw."""
    return bool((rows["split"] == POOLED).any())
