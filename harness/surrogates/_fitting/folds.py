"""Splits inside the training texts, to choose what a fit is shrunk by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def inner_folds(groups: Sequence[str], folds: int, seed: int) -> list[set[str]]:
    """Cut the distinct prompts of training texts into folds of like size."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    return [{names[i] for i in order[k::folds]} for k in range(min(folds, len(names)))]
