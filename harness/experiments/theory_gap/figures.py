"""Figure of `theory-gap`: how much of a model a chain explains, model by model, and how well rollouts agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.core.style import WIDTH, styled
from harness.experiments._shared.claims_drawing import pooled_figure, pooled_of
from harness.experiments._shared.drawing import figure_of, intervals_of, legend, points
from harness.experiments._shared.parts import FRAME

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


EXPLAINED = ("ccmc-weights", "ccmc-fit", "bigram-restricted", "in-context-bigram", "n-gram")
AGREEMENT = {"ccmc-fit": "ccmc-fit", **FRAME}
DATA = {"ccmc": "paths of a chain", "text": "characters of texts"}
LOWEST = -0.6  # of what is drawn: a chain can be far worse than counts
ABOUT = (
    "Points: means over repetitions with 95 % intervals, model by model, each a step further from the "
    "assumptions; the upper line is the theory's prediction for the tied model, the lower one is counts alone."
)
"""What points, lines and bars are."""


@styled
def _draw(rows: pd.DataFrame) -> Drawing:
    """Explained share of KL(counts) and overlap of winners along the ladder, for each kind of data."""
    frame = pooled_of(rows)
    kinds, rungs = list(frame["at_data"].unique()), list(frame["at_rung"].unique())
    figure, axes = figure_of(WIDTH, 6.4, len(kinds), 2)
    for column, data in enumerate(kinds):
        of = frame[frame["at_data"] == data]
        top, bottom = axes[column], axes[len(kinds) + column]
        _ladder(top, of[of["metric"] == "explained"], rungs, {name: name for name in EXPLAINED})
        top.axhline(1.0, color="black", linewidth=0.9)
        top.axhline(0.0, color="grey", linewidth=0.8, linestyle=":")
        top.annotate("theory, for the tied model", (-0.4, 1.01), va="bottom", fontsize=7)
        top.annotate("counts alone", (-0.4, 0.01), va="bottom", fontsize=7, color="grey")
        top.set(
            ylabel="share of KL(counts) explained",
            ylim=(LOWEST, 1.12),
            title=f"{DATA[data]}; below {LOWEST:g} not drawn",
        )
        _ladder(bottom, of[of["metric"] == "winner_jaccard"], rungs, AGREEMENT)
        bottom.set(ylabel="overlap of winner sets", ylim=(0, 1))
    legend(axes[0], loc="lower right", fontsize=6.5)
    legend(axes[len(kinds)], loc="upper right", fontsize=6.5)
    return figure


def _ladder(axis: Any, frame: pd.DataFrame, rungs: list[str], names: dict[str, str]) -> None:
    for index, (name, label) in enumerate(names.items()):
        of = frame[frame["surrogate"] == name]
        at = [rungs.index(rung) + 0.12 * (index - (len(names) - 1) / 2) for rung in of["at_rung"]]
        points(axis, at, intervals_of(of), index, label)
    axis.set(xticks=range(len(rungs)), xlim=(-0.5, len(rungs) - 0.5))
    axis.set_xticklabels(rungs, rotation=45, ha="right")
    axis.set_xlabel("model, each a step further")


figures = pooled_figure("theory-gap", "theory-gap: how far the theory reaches", ABOUT, _draw)
"""The figure of the experiment; none before its repetitions are pooled."""
