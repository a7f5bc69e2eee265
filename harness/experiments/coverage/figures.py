"""Figure of `coverage`: samples without an MLE, and the risk of the fit on its own and on all prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.core.style import series, styled
from harness.experiments._shared.claims import share
from harness.experiments._shared.claims_drawing import over_repetitions, pooled_figure, repetitions_of
from harness.experiments._shared.drawing import legend, panels, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


ABOUT = (
    "Points: shares of samples without an MLE and mean excess risk, with 95 % intervals, by design of the "
    "prompts; lines: identified directions / (2n), as theory says."
)
"""What points, lines and bars are."""


@styled
def _draw(rows: pd.DataFrame) -> Drawing:
    """Share of samples without an MLE, and the risk of the fit on its own and on all prompts."""
    frame = repetitions_of(rows)
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
            points(axis, sizes * shift, [over_repetitions(risk, at_n=n) for n in sizes], index, design)
        free = float(of[of["metric"] == "free_directions"]["value"].astype(float).min())
        own.plot(sizes, (K * (K - 1) - free) / (2 * sizes), color=series(index)["color"], linewidth=0.9)
    none.set(ylabel="share of samples without an MLE", ylim=(-0.03, 1.03))
    own.set(ylabel="excess risk of the fit (nats)", yscale="log", title="prompts of the design; lines: theory")
    everywhere.set(ylabel="excess risk of the fit (nats)", yscale="log", title="prompts of all tokens")
    for axis in (none, own, everywhere):
        axis.set(xscale="log", xlabel="observations n")
    legend(none)
    return figure


figures = pooled_figure("coverage", "coverage: existence and risk of the fit by design", ABOUT, _draw)
"""The figure of the experiment; none before its repetitions are pooled."""
