"""Splits inside the training texts, to choose what a fit is shrunk by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.surrogates.observations import NextTokenObservations

QUARTERS = 4


def inner_folds(groups: Sequence[str], folds: int, seed: int) -> list[set[str]]:
    """Cut the distinct prompts of training texts into folds of like size."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    return [{names[i] for i in order[k::folds]} for k in range(min(folds, len(names)))]


def keep_back(
    observations: NextTokenObservations, seed: int
) -> tuple[NextTokenObservations, NextTokenObservations] | None:
    """Training texts without those of a quarter of the prompts, and the texts of that quarter.

    Returns:
        None where there are too few prompts to keep any back.
    """
    folds = inner_folds(observations.groups, QUARTERS, seed)
    if len(folds) < 2:
        return None
    return observations.part(set(observations.groups) - folds[0]), observations.part(folds[0])
