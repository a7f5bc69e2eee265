"""Figure of `positions`: risk with and without positions, and how a fading memory decides who is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from harness.core.rows import with_factors
from harness.core.style import styled
from harness.experiments._shared.claims import POOLED
from harness.experiments._shared.claims_drawing import pooled_figure
from harness.experiments._shared.drawing import intervals_of, legend, panels, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


POSITION_SURROGATES = {"counts": "counts", "ccmc-fit": "blind fit", "pccmc-weights": "with positions, trained"}
RECENCY = {"one_left": "paths with one token left", "top_share": "share of the top token"}
ABOUT = (
    "Points: means over repetitions with 95 % intervals; lines: what theory says. Left: risk by kind of "
    "positions; right: what is left of a walk whose memory fades."
)
"""What points, lines and bars are."""


@styled
def _draw(rows: pd.DataFrame) -> Drawing:
    """Risk of surrogates with and without positions, and how recency decides who is left."""
    every = with_factors(rows)
    frame = every[every["split"] == POOLED]
    figure, (risk, left) = panels(2, 3.2)
    kinds = list(frame["at_positions"].dropna().unique())
    for index, (name, label) in enumerate(POSITION_SURROGATES.items()):
        of = frame[(frame["metric"] == "excess_risk") & (frame["surrogate"] == name)]
        at = [kinds.index(kind) + 0.12 * (index - 1) for kind in of["at_positions"]]
        points(risk, at, intervals_of(of), index, label)
    expected = every[(every["metric"] == "excess_risk") & every["prediction"].notna() & (every["split"] != POOLED)]
    for kind, part in expected.groupby("at_positions"):
        x = kinds.index(str(kind))
        risk.plot([x - 0.3, x + 0.3], [float(part["prediction"].mean())] * 2, color="black", label="theory")
    risk.set(ylabel="excess risk (nats)", xlabel="positions of the model", yscale="log", xticks=range(len(kinds)))
    risk.set_xticklabels(kinds)
    risk.set_xlim(-0.5, len(kinds) - 0.5)
    rates = sorted(frame["at_rate"].dropna().unique())
    for index, (metric, label) in enumerate(RECENCY.items()):
        of = frame[frame["metric"] == metric]
        at = [rates.index(rate) + 0.1 * (index - 0.5) for rate in of["at_rate"]]
        points(left, at, intervals_of(of), index, label)
    left.plot([0.6, len(rates) - 0.6], [1, 1], color="black", label="theory, where memory fades")
    left.set(
        xlabel="fading of the memory per token", ylabel="share at the end", ylim=(0, 1.05), xticks=range(len(rates))
    )
    left.set_xticklabels([f"{rate:g}" for rate in rates])
    for axis in (risk, left):
        legend(axis, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    return figure


figures = pooled_figure("positions", "positions: risk, and what a fading memory leaves", ABOUT, _draw)
"""The figure of the experiment; none before its repetitions are pooled."""
