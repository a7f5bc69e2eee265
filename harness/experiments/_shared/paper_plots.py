"""Figures of the experiments on equivalence, coverage and sample complexity, and the table of all figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.core.records import Interval
from harness.core.rows import with_factors
from harness.experiments._shared.claims import mean, share
from harness.experiments._shared.plots import COLOURS, legend, panels, points
from harness.experiments._shared.trajectory_plots import positions, trajectory, winners
from harness.experiments.theory_gap.figures import theory_gap


def _by_repetition(frame: pd.DataFrame, **where: object) -> Interval:
    for column, wanted in where.items():
        frame = frame[frame[column] == wanted]
    return mean(frame["value"].dropna().to_numpy(dtype=float))


def _repetitions(rows: pd.DataFrame) -> pd.DataFrame:
    return with_factors(rows[rows["split"].isna() | (rows["split"] != "pooled")])


def equivalence(rows: pd.DataFrame) -> Figure:
    """Lost mass below K, and the largest error of a probability above."""
    frame = _repetitions(rows)
    figure, (lost, error) = panels(2)
    K = int(frame["at_K"].iloc[0])
    below = sorted(d for d in frame["at_d"].unique() if d < K)
    above = sorted(d for d in frame["at_d"].unique() if d >= K)
    for index, origin in enumerate(("random", "trained")):
        part = frame[(frame["at_weights"] == origin) & (frame["at_dtype"] == "float64")]
        found = [_by_repetition(part, metric="lost_mass", at_d=d) for d in below + above]
        points(lost, np.array(below + above) / K * (1 + 0.03 * index), found, index, f"{origin} weights")
        for style, dtype in enumerate(("float64", "float32")):
            of = frame[(frame["at_weights"] == origin) & (frame["at_dtype"] == dtype)]
            found = [_by_repetition(of, metric="equivalence_error", at_d=d) for d in above]
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


def coverage(rows: pd.DataFrame) -> Figure:
    """Share of samples without an MLE, and the risk of the fit on its own and on all prompts."""
    frame = _repetitions(rows)
    figure, (none, own, everywhere) = panels(3)
    sizes = np.array(sorted(frame["at_n"].unique()), dtype=float)
    K = int(frame["at_K"].iloc[0])
    for index, design in enumerate(frame["at_design"].unique()):
        of = frame[frame["at_design"] == design]
        shift = 1 + 0.05 * (index - 1.5)
        flags = [of[(of["metric"] == "no_mle") & (of["at_n"] == n)]["value"].to_numpy(dtype=float) for n in sizes]
        points(none, sizes * shift, [share(int(f.sum()), len(f)) for f in flags], index, design)
        for axis, prompts in ((own, "own"), (everywhere, "all")):
            risk = of[(of["metric"] == "excess_risk") & (of["at_prompts"] == prompts)]
            points(axis, sizes * shift, [_by_repetition(risk, at_n=n) for n in sizes], index, design)
        free = float(of[of["metric"] == "free_directions"]["value"].astype(float).min())
        own.plot(sizes, (K * (K - 1) - free) / (2 * sizes), color=COLOURS[index], linewidth=0.9)
    none.set(ylabel="share of samples without an MLE", ylim=(-0.03, 1.03))
    own.set(ylabel="excess risk of the fit (nats)", yscale="log", title="prompts of the design; lines: theory")
    everywhere.set(ylabel="excess risk of the fit (nats)", yscale="log", title="prompts of all tokens")
    for axis in (none, own, everywhere):
        axis.set(xscale="log", xlabel="observations n")
    legend(none)
    return figure


def sample_complexity(rows: pd.DataFrame) -> Figure:
    """Excess risk and error of the logits against n, and the share of samples without an MLE."""
    frame = _repetitions(rows)
    figure, (risk, error, none) = panels(3, 3.4)
    sizes = sorted(int(K) for K in frame["at_K"].unique())
    for index, K in enumerate(sizes):
        of = frame[frame["at_K"] == K]
        n = np.array(sorted(of["at_n"].unique()), dtype=float)
        normal = of[of["at_family"] == "gaussian"]
        fitted = normal[normal["surrogate"] == "ccmc-fit"]
        for axis, metric in ((risk, "excess_risk"), (error, "logit_error")):
            points(axis, n, [_by_repetition(fitted, metric=metric, at_n=k) for k in n], index, f"K = {K}")
            trained = normal[normal["surrogate"] == "model"]
            found = [_by_repetition(trained, metric=metric, at_n=k) for k in n]
            points(axis, n * 1.25, found, index, None, markerfacecolor="white")
            predicted = [fitted[(fitted["metric"] == metric) & (fitted["at_n"] == k)]["prediction"].mean() for k in n]
            axis.plot(n, np.array(predicted, dtype=float), color=COLOURS[index], linewidth=0.9)
        other = of[(of["at_family"] == "dirichlet") & (of["metric"] == "no_mle")]
        flags = [other[other["at_n"] == k]["value"].to_numpy(dtype=float) for k in n]
        per_square = n / K**2 * (1 + 0.06 * (index - 1.5))
        points(none, per_square, [share(int(f.sum()), len(f)) for f in flags], index, f"K = {K}", linestyle="-")
    risk.set(ylabel="excess risk (nats)", title="lines: K(K-1)/(2n)")
    error.set(ylabel="squared error of the logits", title="lines: tr(H⁺)/n")
    none.set(ylabel="share without an MLE", xlabel="observations / K²", title="Dirichlet(1) teachers", xscale="log")
    none.set_ylim(-0.03, 1.03)
    for axis in (risk, error):
        axis.set(xscale="log", yscale="log", xlabel="observations n")
    handles, names = risk.get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), title="fit; hollow: trained model")
    return figure


FIGURES = {
    "equivalence": equivalence,
    "coverage": coverage,
    "sample-complexity": sample_complexity,
    "trajectory": trajectory,
    "winners": winners,
    "positions": positions,
    "theory-gap": theory_gap,
}
