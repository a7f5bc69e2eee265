"""What the figures of the paper's experiments share: rows of single repetitions, and means over them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from harness.core.records import Figure, Interval
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


def pooled_figure(
    name: str, title: str, about: str, draw: Callable[[pd.DataFrame], Any]
) -> Callable[[pd.DataFrame, pd.DataFrame], list[Figure]]:
    """The `figures` of an experiment with one figure, which exists once its repetitions are pooled.

    Args:
        name, title, about: of the figure.
        draw: makes it from the rows of the experiment.

    Returns:
        A function of the rows of one run and its trajectories, which are not used.
    """

    def figures(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
        return [Figure(name, title, about, partial(draw, rows))] if (rows["split"] == POOLED).any() else []

    return figures
