"""Figure of `trajectory`: phase diagram, exponent of a loser, and what a path teaches of P."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.core.rows import with_factors
from harness.core.style import WIDTH, series, styled
from harness.experiments._shared.claims_drawing import pooled_figure
from harness.experiments._shared.drawing import figure_of, intervals_of, legend, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


ABOUT = (
    "Top left: median frequency of a token, with theory's phases; elsewhere points are measurements with 95 % "
    "intervals over paths, and lines are theory's exponents."
)
"""What points, lines and bars are."""


@styled
def _draw(rows: pd.DataFrame) -> Drawing:
    """The phase diagram, the exponent of a loser, and error of log P along a path."""
    frame = with_factors(rows)
    figure, (phase, loser, error, none) = figure_of(WIDTH, 5.4, 2, 2)
    _phase(figure, phase, frame[(frame["metric"] == "median_share") & (frame["split"] == "paths")])
    _loser(loser, frame[frame["metric"] == "loser_exponent"])
    _along(error, frame[frame["metric"] == "log_p_error"], "median error of log P", "log")
    _along(none, frame[frame["metric"] == "no_mle"], "share of paths without an MLE", "linear")
    legend(error, title="P[i, 1] = p", title_fontsize=8)
    return figure


def _phase(figure: Drawing, axis: Any, cells: pd.DataFrame) -> None:
    table = cells.astype({"value": float}).pivot_table(index="at_b", columns="at_a", values="value")
    a, b = table.columns.to_numpy(dtype=float), table.index.to_numpy(dtype=float)
    image = axis.pcolormesh(a, b, table.to_numpy(), vmin=0, vmax=1, cmap="cividis", shading="nearest")
    axis.axvline(0.5, color="white", linewidth=1.5)
    axis.axhline(0.5, color="white", linewidth=1.5)
    axis.plot([0.5], [0.5], "o", color="white")
    texts = {(0.25, 0.25): "coexistence", (0.75, 0.25): "0 wins", (0.25, 0.75): "1 wins", (0.75, 0.75): "bistable"}
    for (x, y), text in texts.items():
        style = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
        axis.text(x, y, text, ha="center", va="center", fontsize=8, bbox=style)
    steps = int(cells["at_T"].iloc[0])
    axis.set(
        xlabel="a = P[0, 0]", ylabel="b = P[1, 1]", title=f"lines and words: theory; T = {steps:,}", aspect="equal"
    )
    figure.colorbar(image, ax=axis, label="median frequency of token 0")


def _loser(axis: Any, found: pd.DataFrame) -> None:
    a = np.linspace(0.5, 0.98, 100)
    axis.plot(a, (2 * a - 1) / a, color="black", label="theory: (2a - 1)/a")
    steps = int(found["at_T"].max())
    points(axis, found["at_a"].to_numpy(dtype=float), intervals_of(found), 0, f"last decade before T = {steps:,}")
    axis.set(xlabel="a = P[0, 0]", ylabel="decay exponent of the loser", title="b = 0.3")
    legend(axis)


def _along(axis: Any, found: pd.DataFrame, label: str, scale: str) -> None:
    for index, p in enumerate(sorted(found["at_p"].dropna().unique())):
        of = found[found["at_p"] == p].sort_values("at_T")
        T = of["at_T"].to_numpy(dtype=float)
        points(axis, T * (1 + 0.08 * index), intervals_of(of), index, f"p = {p:g}")
        rho = p / (1 - p)
        first = of["value"].dropna()
        if scale == "log" and rho > 0.5 and len(first):
            line = float(first.iloc[0]) * (T / T[0]) ** (-(2 * rho - 1) / 2)
            axis.plot(T, line, color=series(index)["color"], linewidth=0.9)
    axis.set(xlabel="length of the path T (tokens)", ylabel=label, xscale="log", yscale=scale)
    if scale == "log":
        axis.set_title("lines: theory's slope -(2p/(1-p) - 1)/2")


figures = pooled_figure("trajectory", "trajectory: phases, losers, and learning from one path", ABOUT, _draw)
"""The figure of the experiment; none before its repetitions are pooled."""
