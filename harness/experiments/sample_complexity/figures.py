"""Figure of `sample-complexity`: excess risk and error of the logits against n, and samples without an MLE."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.core.style import series, styled
from harness.experiments._shared.claims import share
from harness.experiments._shared.claims_drawing import over_repetitions, pooled_figure, repetitions_of
from harness.experiments._shared.drawing import panels, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


ABOUT = (
    "Points: means over repetitions with 95 % intervals, filled for the fit and hollow for the trained model; "
    "lines: K(K-1)/(2n) and tr(H^+)/n, as theory says."
)
"""What points, lines and bars are."""


@styled
def _draw(rows: pd.DataFrame) -> Drawing:
    """Excess risk and error of the logits against n, and the share of samples without an MLE."""
    frame = repetitions_of(rows)
    figure, (risk, error, none) = panels(3, 3.4)
    sizes = sorted(int(K) for K in frame["at_K"].unique())
    for index, K in enumerate(sizes):
        of = frame[frame["at_K"] == K]
        n = np.array(sorted(of["at_n"].unique()), dtype=float)
        normal = of[of["at_family"] == "gaussian"]
        fitted = normal[normal["surrogate"] == "ccmc-fit"]
        for axis, metric in ((risk, "excess_risk"), (error, "logit_error")):
            points(axis, n, [over_repetitions(fitted, metric=metric, at_n=k) for k in n], index, f"K = {K}")
            trained = normal[normal["surrogate"] == "model"]
            found = [over_repetitions(trained, metric=metric, at_n=k) for k in n]
            points(axis, n * 1.25, found, index, None, markerfacecolor="white")
            predicted = [fitted[(fitted["metric"] == metric) & (fitted["at_n"] == k)]["prediction"].mean() for k in n]
            axis.plot(n, np.array(predicted, dtype=float), color=series(index)["color"], linewidth=0.9)
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


figures = pooled_figure("sample-complexity", "sample-complexity: risk and error against observations", ABOUT, _draw)
"""The figure of the experiment; none before its repetitions are pooled."""
