"""Figure of `equivalence`: mass lost below K, and the largest error of a probability above."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.core.style import styled
from harness.experiments._shared.claims_drawing import over_repetitions, pooled_figure, repetitions_of
from harness.experiments._shared.drawing import legend, panels, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


ABOUT = (
    "Points: means over repetitions with 95 % intervals. Left: mass that the tied classifier loses; right: "
    "largest error of a probability, with the rounding unit of each precision as a line."
)
"""What points, lines and bars are."""


@styled
def _draw(rows: pd.DataFrame) -> Drawing:
    """Lost mass below K, and the largest error of a probability above."""
    frame = repetitions_of(rows)
    figure, (lost, error) = panels(2)
    K = int(frame["at_K"].iloc[0])
    below = sorted(d for d in frame["at_d"].unique() if d < K)
    above = sorted(d for d in frame["at_d"].unique() if d >= K)
    for index, origin in enumerate(("random", "trained")):
        part = frame[(frame["at_weights"] == origin) & (frame["at_dtype"] == "float64")]
        found = [over_repetitions(part, metric="lost_mass", at_d=d) for d in below + above]
        points(lost, np.array(below + above) / K * (1 + 0.03 * index), found, index, f"{origin} weights")
        for style, dtype in enumerate(("float64", "float32")):
            of = frame[(frame["at_weights"] == origin) & (frame["at_dtype"] == dtype)]
            found = [over_repetitions(of, metric="equivalence_error", at_d=d) for d in above]
            filled = {} if style == 0 else {"markerfacecolor": "white"}
            points(error, np.array(above) / K * (1 + 0.03 * index), found, index, f"{origin}, {dtype}", **filled)
    for epsilon, dtype in ((2.2e-16, "float64"), (1.2e-7, "float32")):
        error.axhline(epsilon, color="grey", linestyle=":")
        error.annotate(f"eps of {dtype}", (2.0, epsilon), ha="center", va="bottom", fontsize=7)
    lost.axhline(0.0, color="grey", linewidth=0.8)
    lost.axvline(1.0, color="grey", linestyle="--")
    lost.set(xlabel="embedding dimension d / K", ylabel="mass lost by the tied classifier", title=f"K = {K}")
    error.set(xlabel="embedding dimension d / K", ylabel="largest error of a probability", yscale="log")
    error.set_title("model against the chain off its weights")
    legend(lost)
    legend(error)
    return figure


figures = pooled_figure("equivalence", "equivalence: mass lost and largest error", ABOUT, _draw)
"""The figure of the experiment; none before its repetitions are pooled."""
