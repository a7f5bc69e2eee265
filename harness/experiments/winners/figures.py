"""Figure of `winners`: the mean field against a path by the start of the prediction, beside a second simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.core.style import WIDTH, styled
from harness.experiments._shared.claims_drawing import pooled_figure, pooled_of
from harness.experiments._shared.drawing import figure_of, intervals_of, legend, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


FAMILIES_AT = 20
MEAN_FIELD = "mean field; hollow: a second simulation"
ABOUT = (
    "Filled points: the mean field; hollow points: a second simulation from the same state; means over "
    "repetitions with 95 % intervals, against the start of the prediction."
)
"""What points, lines and bars are."""


@styled
def _draw(rows: pd.DataFrame) -> Drawing:
    """Distance of the mean field from the path against t0, and agreement of winner sets, beside a second simulation."""
    frame = pooled_of(rows)
    figure, axes = figure_of(WIDTH, 5.8, 2, 2)
    for row, (metric, label) in enumerate((("l1", "L1 distance at T"), ("jaccard", "winner sets, Jaccard"))):
        sizes = frame[frame["at_family"] == "gaussian"]
        _against_start(axes[2 * row], sizes, metric, "at_K", "K = {:g}")
        at = frame[frame["at_K"] == FAMILIES_AT]
        _against_start(axes[2 * row + 1], at, metric, "at_family", "{}")
        for axis in axes[2 * row : 2 * row + 2]:
            axis.set(xscale="log", xlabel="start of the prediction t0 (tokens)", ylabel=label)
    axes[0].set_title("Gaussian logits")
    axes[1].set_title(f"K = {FAMILIES_AT}")
    for axis in axes[:2]:
        axis.set_yscale("log")
    for axis in axes[2:]:
        axis.set_ylim(0, 1.05)
        legend(axis, loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3, title=MEAN_FIELD)
    return figure


def _against_start(axis: Any, frame: pd.DataFrame, metric: str, column: str, label: str) -> None:
    for index, name in enumerate(frame[column].dropna().unique()):
        for hollow in (False, True):
            of = frame[(frame[column] == name) & (frame["metric"] == metric + ("_ceiling" if hollow else ""))]
            of = of.sort_values("at_t0")
            t0 = of["at_t0"].to_numpy(dtype=float) * (1 + 0.14 * index + 0.07 * hollow)
            style = {"markerfacecolor": "white"} if hollow else {"linestyle": "-"}
            points(axis, t0, intervals_of(of), index, None if hollow else label.format(name), **style)


figures = pooled_figure("winners", "winners: the mean field beside a second simulation", ABOUT, _draw)
"""The figure of the experiment; none before its repetitions are pooled."""
