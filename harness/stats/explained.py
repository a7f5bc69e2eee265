"""The share that a surrogate explains, 1 - sum KL / sum KL(counts): computed here and nowhere else."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from harness.core.records import Interval
from harness.stats.intervals import ratio_interval

FLAT = 1e-6  # nats


def explained_interval(
    kl_surrogate: ArrayLike, kl_counts: ArrayLike, seed: int, level: float = 0.95, *, queries: float | None = None
) -> Interval:
    """Share explained, 1 - sum KL / sum KL(counts), over prompts.

    Args:
        kl_surrogate: [n] each prompt's sum of the surrogate's KL.
        kl_counts: [n] each prompt's sum of KL(counts) over the same queries.
        seed: of the resampling.
        level: nominal coverage.
        queries: how many the sums are over in all; where the mean KL(counts) is then below `FLAT`, which rounding in
            float32 reaches, there is nothing to explain, and the value is missing.

    Returns:
        The share with its interval, as `ratio_interval`.

    Raises:
        ValueError: as `ratio_interval`.
    """
    if queries is not None and queries > 0 and np.sum(kl_counts) < FLAT * queries:
        return Interval(None, None, None, np.size(kl_counts), f"counts alone predict these queries to {FLAT:g} nats")
    return complement(ratio_interval(kl_surrogate, kl_counts, seed, level))


def complement(ratio: Interval) -> Interval:
    """1 - a ratio, its interval turned round; undefined where the ratio is."""
    value, low, high = (None if x is None else 1.0 - x for x in (ratio.value, ratio.high, ratio.low))
    return Interval(value, low, high, ratio.n, ratio.missing)
