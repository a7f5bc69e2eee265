"""Figure of `depth`: what a chain explains, and what models have learned, against their number of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from harness.core.rows import MODEL
from harness.core.style import WIDTH, styled
from harness.experiments._shared.claims_drawing import pooled_figure, pooled_of
from harness.experiments._shared.drawing import figure_of, intervals_of, legend, points
from harness.experiments.depth.names import FLOAT

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LINES = ("ccmc-fit", "bigram-restricted", "in-context-bigram")
LOOK = {"none": "-", "rotary": "--", "learned": ":"}
LOWEST = -0.6  # of what is drawn: a surrogate can be far worse than counts
ABOUT = (
    "Left: share of KL(counts) that surrogates explain, on held-out sequences. Right: held-out loss above that of the "
    "best predictor, which knows how sequences are drawn. Lines by kind of positions; means over repetitions with 95 % "
    "intervals."
)


@styled
def _draw(rows: pd.DataFrame) -> Drawing:
    frame = pooled_of(rows)
    frame = frame[frame["at_weights"] == FLOAT]
    layers = sorted(int(n) for n in frame["at_layers"].unique())
    figure, (left, right) = figure_of(WIDTH, 3.8, 2)
    for place, kind in enumerate(frame["at_positions"].unique()):
        of = frame[frame["at_positions"] == kind]
        for index, name in enumerate(LINES):
            shown = of[(of["metric"] == "explained") & (of["surrogate"] == name)]
            at = [layers.index(int(n)) + 0.05 * (index - 1) + 0.02 * place for n in shown["at_layers"]]
            points(left, at, intervals_of(shown), index, f"{name}, {kind}", linestyle=LOOK[str(kind)], linewidth=1)
        lost = of[(of["metric"] == "loss_above_best") & (of["surrogate"] == MODEL)]
        at = [layers.index(int(n)) + 0.05 * place for n in lost["at_layers"]]
        points(right, at, intervals_of(lost), place, f"positions: {kind}", linestyle=LOOK[str(kind)], linewidth=1)
    low = frame.loc[(frame["metric"] == "explained") & frame["surrogate"].isin(LINES), "value"].astype(float).min()
    left.set(ylabel="share of KL(counts) explained", ylim=(max(LOWEST, min(0.0, low) - 0.05), 1.05))
    left.axhline(0.0, color="grey", linewidth=0.8, linestyle=":")
    tokens = frame.loc[frame["metric"] == "training_tokens", "value"].astype(float)
    stopped = frame.loc[frame["metric"] == "stopped_early", "value"].astype(float)
    right.set(ylabel="held-out loss above the best (nats)")
    right.set_title(
        f"{tokens.mean():,.0f} tokens, each seen once; {100 * stopped.mean():.0f} % stopped early", fontsize=8
    )
    right.set_ylim(bottom=0.0)
    for axis in (left, right):
        axis.set_xticks(range(len(layers)), [str(n) for n in layers])
        axis.set_xlabel("layers")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=6.5)
    legend(right, fontsize=6.5)
    return figure


figures = pooled_figure("depth", "depth: chains against models of more layers", ABOUT, _draw)
"""The figure of the experiment; none before its repetitions are pooled."""
