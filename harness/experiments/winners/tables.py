"""Tables of `winners`: the claims in short, the mean field beside a second simulation, and every measurement."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.core.records import Column, Table
from harness.experiments._shared.claims_words import Comparison, claims_tables, comparisons, picked

LABELS = {
    "l1": "L1 distance at T (Gaussian)",
    "odds_gap": "odds of the likeliest winner set",
    "absorbed": "finite window: one token is left",
}
"""Metric -> what it is called where there is little room."""
MEASURES = {
    "l1": ("L1, mean field", 1),
    "l1_ceiling": ("L1, second simulation", 1),
    "jaccard": ("winners, mean field", 2),
    "jaccard_ceiling": ("winners, second simulation", 2),
}
"""Metric -> column and its priority."""


def tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of the experiment, the headline first.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    return [*claims_tables(rows, LABELS), *([_mean_field(found)] if picked(found, "l1") else [])]


def _mean_field(found: Sequence[Comparison]) -> Table:
    """How near the mean field comes to a path, by family, size and start."""
    cells = {
        (one.metric, *(one.factors[name] for name in ("family", "K", "t0"))): one.found
        for one in found
        if one.metric in MEASURES
    }
    places = list(dict.fromkeys(key[1:] for key in cells))
    body = [[*place, *(cells.get((metric, *place)) for metric in MEASURES)] for place in places]
    columns = [Column("family", left=True), Column("K"), Column("t0", "tokens")]
    columns += [Column(name, priority=priority) for name, priority in MEASURES.values()]
    caption = (
        "Prediction from the counts at t0 against the path at T: L1 distance of the frequencies, and overlap (Jaccard) "
        "of the smallest sets of tokens with 90 % of them. A second simulation from the same state at t0 shows what "
        "chance alone leaves open. Medians over paths, means over repetitions, 95 % intervals, bootstrap over those."
    )
    title = "winners: the mean field against a path, beside a second simulation"
    return Table("winners.mean-field", title, columns, body, caption)
