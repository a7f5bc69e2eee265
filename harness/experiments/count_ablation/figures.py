"""Figures of the count ablation: repetition against its strength, and against what it costs on prose."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.core.records import Figure, Interval
from harness.core.style import series, styled
from harness.experiments._shared.drawing import panels, points
from harness.experiments._shared.naming import labels
from harness.experiments.count_ablation.conditions import NONE, PROSE, REPETITION, Part, name, parts, place_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn

ASIDE = 0.012  # so that intervals are beside one another


def figures(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
    """One figure per model.

    Args:
        rows: of the experiment, from one run.
        trajectories: not read.
    """
    found = parts(rows)
    named = labels([part.model for part in found])
    return [
        Figure(
            f"count-ablation-{named[part.model]}",
            f"Repetition of {part.model} without the count",
            "Left: seq_rep_4 against the strength of each ablation; right: against the loss on prose of everything "
            "that was tried. Bars: 95 % intervals over prompts.",
            partial(ablation_figure, part),
        )
        for part in found
    ]


def by_strength(part: Part) -> dict[str, list[tuple[float, Interval]]]:
    """Part that lost the count -> (strength, seq_rep_4), from nothing done on; random heads are left out."""
    nothing = part.interval(NONE, REPETITION)
    found: dict[str, list[tuple[float, Interval]]] = {}
    for condition in part.conditions:
        factors = json.loads(condition)
        if "strength" in factors and "draw" not in factors:
            curve = found.setdefault(factors["ablation"], [(0.0, nothing)])
            curve.append((factors["strength"], part.interval(condition, REPETITION)))
    return found


def by_loss(part: Part) -> list[tuple[str, float, float]]:
    """(condition, loss on prose, seq_rep_4), without losses that are infinite on some texts: a mean would flatter."""
    found = []
    for condition in part.conditions:
        loss, repeats = part.sample(condition, PROSE), part.sample(condition, REPETITION).value
        if loss.value is not None and not loss.missing and repeats is not None:
            found.append((condition, loss.value, repeats))
    return found


@styled
def ablation_figure(part: Part) -> Drawn:
    """Repetition against the strength of the ablation, and against the loss on prose of everything tried."""
    figure, (left, right) = panels(2)
    for index, (place, curve) in enumerate(by_strength(part).items()):
        strengths, found = zip(*curve, strict=True)
        points(left, np.array(strengths) + ASIDE * index, found, index, place_name(place), linestyle="-", linewidth=1)
    left.set(xlabel="strength of the ablation", ylabel=REPETITION)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=7)
    for index, (condition, loss, repeats) in enumerate(by_loss(part)):
        right.plot(loss, repeats, linestyle="none", label=name(condition), **series(index))
    right.set(xlabel="loss on prose (nats per token)", ylabel=REPETITION)
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=5.5)
    return figure
