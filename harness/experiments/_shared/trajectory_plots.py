"""Figures of the experiments on long trajectories: phase diagram, losers, learning from a path, and who wins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.core.rows import with_factors
from harness.experiments._shared.plots import COLOURS, WIDTH, intervals_of, legend, panels, points

FAMILIES_AT = 20
MEAN_FIELD = "mean field; hollow: a second simulation"
POSITION_SURROGATES = {"counts": "counts", "ccmc-fit": "blind fit", "pccmc-weights": "with positions, trained"}
RECENCY = {"one_left": "paths with one token left", "top_share": "share of the top token"}


def trajectory(rows: pd.DataFrame) -> Figure:
    """The phase diagram, the exponent of a loser, and error of log P along a path."""
    frame = with_factors(rows)
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    axes = figure.subplots(2, 2)
    _phase(figure, axes[0, 0], frame[(frame["metric"] == "median_share") & (frame["split"] == "paths")])
    _loser(axes[0, 1], frame[frame["metric"] == "loser_exponent"])
    _along(axes[1, 0], frame[frame["metric"] == "log_p_error"], "median error of log P", "log")
    _along(axes[1, 1], frame[frame["metric"] == "no_mle"], "share of paths without an MLE", "linear")
    legend(axes[1, 0], title="P[i, 1] = p", title_fontsize=8)
    return figure


def _phase(figure: Figure, axis: Any, cells: pd.DataFrame) -> None:
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
            axis.plot(T, line, color=COLOURS[index], linewidth=0.9)
    axis.set(xlabel="length of the path T (tokens)", ylabel=label, xscale="log", yscale=scale)
    if scale == "log":
        axis.set_title("lines: theory's slope -(2p/(1-p) - 1)/2")


def winners(rows: pd.DataFrame) -> Figure:
    """Distance of the mean field from the path against t0, and agreement of winner sets, beside a second simulation."""
    frame = with_factors(rows[rows["split"] == "pooled"])
    figure = Figure(figsize=(WIDTH, 5.8), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, (metric, label) in enumerate((("l1", "L1 distance at T"), ("jaccard", "winner sets, Jaccard"))):
        sizes = frame[frame["at_family"] == "gaussian"]
        _against_start(axes[row, 0], sizes, metric, "at_K", "K = {:g}")
        at = frame[frame["at_K"] == FAMILIES_AT]
        _against_start(axes[row, 1], at, metric, "at_family", "{}")
        for axis in axes[row]:
            axis.set(xscale="log", xlabel="start of the prediction t0 (tokens)", ylabel=label)
    axes[0, 0].set_title("Gaussian logits")
    axes[0, 1].set_title(f"K = {FAMILIES_AT}")
    for axis in axes[0]:
        axis.set_yscale("log")
    for axis in axes[1]:
        axis.set_ylim(0, 1.05)
    for column in range(2):
        legend(axes[1, column], loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3, title=MEAN_FIELD)
    return figure


def positions(rows: pd.DataFrame) -> Figure:
    """Risk of surrogates with and without positions, and how recency decides who is left."""
    every = with_factors(rows)
    frame = every[every["split"] == "pooled"]
    figure, (risk, left) = panels(2, 3.2)
    kinds = list(frame["at_positions"].dropna().unique())
    for index, (name, label) in enumerate(POSITION_SURROGATES.items()):
        of = frame[(frame["metric"] == "excess_risk") & (frame["surrogate"] == name)]
        at = [kinds.index(kind) + 0.12 * (index - 1) for kind in of["at_positions"]]
        points(risk, at, intervals_of(of), index, label)
    told = every[(every["metric"] == "excess_risk") & every["prediction"].notna() & (every["split"] != "pooled")]
    for kind, part in told.groupby("at_positions"):
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


def _against_start(axis: Any, frame: pd.DataFrame, metric: str, column: str, label: str) -> None:
    for index, name in enumerate(frame[column].dropna().unique()):
        for hollow in (False, True):
            of = frame[(frame[column] == name) & (frame["metric"] == metric + ("_ceiling" if hollow else ""))]
            of = of.sort_values("at_t0")
            t0 = of["at_t0"].to_numpy(dtype=float) * (1 + 0.14 * index + 0.07 * hollow)
            style = {"markerfacecolor": "white"} if hollow else {"linestyle": "-"}
            points(axis, t0, intervals_of(of), index, None if hollow else label.format(name), **style)
