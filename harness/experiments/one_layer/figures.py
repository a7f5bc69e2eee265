"""Figures of the experiment `one-layer`: excess risk beside its prediction, and agreement on winners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from harness.core.records import Figure
from harness.core.style import BLACK, styled
from harness.experiments._shared.drawing import Estimate, dot_plot, legend, panels, points
from harness.experiments.one_layer.parts import LABELS, Setting, settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn


@styled
def risk_figure(found: list[Setting]) -> Drawn:
    """Excess risks with their intervals; a bar at each is what the theory predicts."""
    kinds = list(dict.fromkeys(key for one in found for key in one.risks))
    figure, (axis,) = panels(1, 3.2)
    axis.plot([], [], color=BLACK, label="theory")
    for index, (metric, name) in enumerate(kinds):
        over = "" if metric == "excess_risk" else " over the trained model"
        have = [(place, one) for place, one in enumerate(found) if (metric, name) in one.risks]
        at = [place + 0.15 * (index - (len(kinds) - 1) / 2) for place, _ in have]
        points(axis, at, [one.interval(metric, name) for _, one in have], index, f"{LABELS.get(name, name)}{over}")
        for x, (_, one) in zip(at, have, strict=True):
            if (predicted := one.predicted(metric, name)) is not None:
                axis.plot([x - 0.06, x + 0.06], [predicted, predicted], color=BLACK)
    axis.set(ylabel="excess risk (nats)", xlim=(-0.6, len(found) - 0.4), xticks=range(len(found)))
    axis.set_xticklabels([one.what.replace(", n", "\nn") for one in found])
    legend(axis, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _overlaps(found: list[Setting]) -> dict[str, list[Estimate]]:
    """Setting -> overlap of winner sets of everything that was compared."""
    return {
        one.what: [(LABELS.get(name, name), one.interval("winner_jaccard", name)) for name in one.compared]
        for one in found
    }


def figures(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
    """Excess risk, and the overlap of winner sets where prompts were continued.

    Args:
        rows: of the experiment, from one run.
        trajectories: are not drawn here.
    """
    found = [one for one in settings(rows) if one.risks]
    continued = [one for one in found if one.compared]
    made = []
    if found:
        made.append(
            Figure(
                "one-layer-risk",
                "One-layer model: excess risk, measured and predicted",
                "Points: means over repetitions with 95 % intervals; bars: K(K-1)/(2n), twice that for the fit.",
                lambda: risk_figure(found),
            )
        )
    if continued:
        made.append(
            Figure(
                "one-layer-winners",
                "One-layer model: overlap with the trained model's winners",
                "95 % intervals over repetitions. Floor: the model on another prompt; ceiling: with another seed.",
                lambda: dot_plot(_overlaps(continued), "overlap of winner sets (Jaccard)"),
                wide=False,
            )
        )
    return made
