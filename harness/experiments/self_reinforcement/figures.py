"""Figures of self-reinforcement: the probability of a sentence against the number of its repetitions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from harness.core.records import Figure
from harness.core.rows import MODEL
from harness.core.style import BLACK, WIDTH, styled
from harness.experiments._shared.drawing import figure_of, points
from harness.experiments._shared.naming import labels
from harness.experiments.self_reinforcement.parts import Part, closed, in_the_loop, parts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn

THIN = {"elinewidth": 0.5, "capsize": 0.0}
"""Bars of surrogates, of which there are many in a panel."""


def figures(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
    """One figure per model, and one with heads replaced.

    Args:
        rows: of the experiment, from one run.
        trajectories: not read.
    """
    found = parts(rows)
    named = labels([part.model for part in found])
    made = [
        Figure(
            f"self-reinforcement-{named[part.model]}",
            f"How likely a repeated sentence is to {part.model} and to its surrogates",
            "Mean probability of a sentence's tokens against k, how often the sentence is in the context. Black: the "
            "model; dashed: closed chains, whose curve is flat but for the part of the sentence that the current "
            "repetition has written, and saturates after a preamble. Bars: 95 % intervals over groups of prompts.",
            partial(curves_figure, part, False),
        )
        for part in found
    ]
    made += [
        Figure(
            f"self-reinforcement-heads-{named[part.model]}",
            f"How likely a repeated sentence is to {part.model} with heads replaced",
            "Mean probability of a sentence's tokens against k, how often the sentence is in the context. Black: the "
            "model; others: with surrogates in place of heads, layer 0 left out. Bars: 95 % intervals over groups of "
            "prompts.",
            partial(curves_figure, part, True),
        )
        for part in found
        if any(map(in_the_loop, part.arms))
    ]
    return made


@styled
def curves_figure(part: Part, heads: bool) -> Drawn:
    """A row of panels per preamble, a panel per kind of sentences.

    Args:
        part: whose curves.
        heads: of the model with heads replaced; else of surrogates.
    """
    columns, rows = len(part.kinds), len(part.preambles)
    figure, axes = figure_of(WIDTH, 0.9 + 2.1 * rows, columns, rows, sharex=True, sharey=True)
    for row, preamble in enumerate(part.preambles):
        for column, kind in enumerate(part.kinds):
            axis = axes[row * columns + column]
            _panel(part, axis, kind, preamble, heads)
            axis.set_title(f"{kind}, " + (f"after {preamble} tokens" if preamble else "no preamble"))
            if row == rows - 1:
                axis.set_xlabel("repetitions k")
            if column == 0:
                axis.set_ylabel("probability")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=7)
    return figure


def _panel(part: Part, axis: object, kind: str, preamble: int, heads: bool) -> None:
    arms = [arm for arm in part.arms if arm != MODEL and in_the_loop(arm) == heads]
    for index, arm in enumerate(arms):
        if part.measured(arm, kind, preamble):
            line = "--" if closed(arm) else "-"
            _draw(part, axis, arm, kind, preamble, index, linestyle=line, linewidth=1.0, markersize=3, **THIN)
    if part.measured(MODEL, kind, preamble):
        look = {"color": BLACK, "marker": "o", "linestyle": "-", "linewidth": 1.8, "zorder": 5, "markersize": 3.5}
        _draw(part, axis, MODEL, kind, preamble, 0, **look)


def _draw(part: Part, axis: object, arm: str, kind: str, preamble: int, index: int, **look: object) -> None:
    found = part.curve(arm, kind, preamble)
    points(axis, range(len(found)), found, index, arm, **look)
