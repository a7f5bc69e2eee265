"""Figures of what causes repetition: its change against the level of the loss, a line for each intervention."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from harness.core.records import Figure, Interval
from harness.core.style import INK, styled
from harness.experiments._shared.drawing import legend, panels, points
from harness.experiments._shared.naming import labels
from harness.experiments.causes.parts import REPEATED, Job, Part, parts
from harness.experiments.causes.settings import SORTS
from harness.experiments.causes.tables import SORT_WORDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn

ASIDE = 0.016
"""How far lines are moved apart, as a factor, so that their intervals are beside one another."""
TITLES = {"natural": "natural repetition", "set-up": "set up by the prompt"}


def figures(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
    """One figure per model, strategy and sort of text that losses are matched on.

    Args:
        rows: of the experiment, from one run.
        trajectories: not read.
    """
    found = parts(rows)
    named = labels([f"{part.model}-{part.strategy}" for part in found])
    return [
        Figure(
            f"causes-{named[f'{part.model}-{part.strategy}']}-{sort}",
            f"What changes the repetition of {part.what}, at matched loss",
            f"Change of seq_rep_4 against the model as it is, by how much the loss on {SORT_WORDS[sort]} rises; left: "
            f"the prompt is continued, right: a sentence of it {part.repeats} times. Dotted: the margin that would not "
            "matter. Bars: 95 % intervals over groups of prompts, each of one figure.",
            partial(change_figure, part, sort),
        )
        for part in found
        for sort in SORTS
        if lines(part, sort)
    ]


def lines(part: Part, sort: str) -> dict[tuple[str, str], list[tuple[float, Interval]]]:
    """(context, intervention) -> (level, change of seq_rep_4) of the levels whose loss is matched."""
    found: dict[tuple[str, str], list[tuple[float, Interval]]] = {}
    for text, level, context in part.families:
        for name in part.compared((text, level, context)) if text == sort else ():
            verdict = part.change(Job(name, text, level), context)
            if verdict is not None:
                found.setdefault((context, name), []).append((level, verdict.interval))
    return found


@styled
def change_figure(part: Part, sort: str) -> Drawn:
    """Change of repetition against the level of the loss, one panel a context."""
    drawn, contexts = lines(part, sort), part.contexts
    figure, axes = panels(len(contexts), sharey=True)
    levels = sorted({level for curve in drawn.values() for level, _ in curve})
    for axis, context in zip(axes, contexts, strict=True):
        for index, name in enumerate(part.names):
            curve = drawn.get((context, name), [])
            aside = (1 + ASIDE) ** (index - len(part.names) / 2)
            x = [level * aside for level, _ in curve]
            points(axis, x, [one for _, one in curve], index, name, linestyle="-", linewidth=1, markersize=4)
        axis.axhline(0.0, color=INK, linewidth=0.8)
        for edge in (-part.margin, part.margin):
            axis.axhline(edge, color=INK, linewidth=0.6, linestyle=":")
        axis.set_xscale("log")
        axis.set_xticks(levels, [f"{level:g}" for level in levels])
        axis.set_xticks([], minor=True)
        axis.set(xlabel="rise of the loss (nats per token)", title=TITLES[context])
    axes[0].set(ylabel=f"change of {REPEATED}")
    legend(axes[-1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=6)
    return figure
