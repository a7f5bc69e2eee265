"""Figures of heads replaced while the model runs: nats lost, and repetition, against the share of heads."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.core.format import interval
from harness.core.records import Figure
from harness.core.style import BLACK, styled
from harness.experiments._shared.drawing import grid_labels, legend, panels, points, saying_cells
from harness.experiments._shared.naming import labels
from harness.experiments.in_the_loop.parts import LOST, REPEATED, Part, SetOf, parts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn

LEAST = 1e-6
Line = tuple[str, list[SetOf], str]
"""Label, the sets of a line, and the arm that is drawn."""


def figures(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
    """One figure of nats per model and strategy, and one of repetition where continuations were written.

    Args:
        rows: of the experiment, from one run.
        trajectories: not read.
    """
    found = parts(rows)
    named = labels([f"{part.model}-{part.strategy}" for part in found])
    made = []
    for part in found:
        name = named[f"{part.model}-{part.strategy}"]
        if lines(part, True):
            made.append(
                Figure(
                    f"in-the-loop-nats-{name}",
                    f"Nats that {part.what} loses with heads replaced",
                    "Loss per token less that of the model, against the share of heads; left: layer 0 left out, right: "
                    "with it. Each surrogate on the heads that it fits best on training texts; nulls and controls on "
                    "those of the chain. Bars: 95 % intervals over groups of prompts.",
                    partial(nats_figure, part),
                )
            )
        if part.alone:
            made.append(
                Figure(
                    f"in-the-loop-alone-{name}",
                    f"What {part.what} does when one head alone is replaced",
                    "KL divergence of the next token in nats (held-out prompts, logarithmic colours), layer by layer.",
                    partial(alone_figure, part),
                )
            )
        if part.written:
            made.append(
                Figure(
                    f"in-the-loop-repetition-{name}",
                    f"Repetition of {part.what} with heads replaced",
                    "Left: seq_rep_4 of continuations against the share of heads; right: against nats lost on texts. "
                    "Dashed: the model. Bars: 95 % intervals over groups of prompts.",
                    partial(repetition_figure, part),
                )
            )
    return made


def lines(part: Part, without: bool) -> list[Line]:
    """One line a surrogate on its own order, then the other arms on the heads of the chain."""
    orders = list(dict.fromkeys(one.order for one in part.sets.values()))
    own = [(order, part.chosen(order, without=without), order) for order in orders]
    own += [(f"{order}, least alone", part.chosen(order, "alone", without), order) for order in part.leaders]
    found = [line for line in own if line[1]]
    for leader in part.leaders:
        sets = part.best(leader, without)
        others = [arm for one in sets[:1] for arm in part.arms(one.condition) if arm != leader]
        found += [(f"{arm} in heads of {leader}", sets, arm) for arm in others]
    return found


@styled
def nats_figure(part: Part) -> Drawn:
    """Nats lost against the share of heads."""
    figure, axes = panels(2, sharey=True)
    for axis, without in zip(axes, (True, False), strict=True):
        for index, (label, sets, arm) in enumerate(lines(part, without)):
            found = [part.mean(LOST, arm, one.condition) for one in sets]
            x = [100 * one.factors["share"] for one in sets]
            points(axis, x, found, index, label, linestyle="-", linewidth=1)
        axis.set(xlabel="share of heads (%)", title="layer 0 left out" if without else "with layer 0")
        axis.set_yscale("symlog", linthresh=0.1)
    axes[0].set(ylabel="nats lost per token")
    legend(axes[1], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=6)
    return figure


@styled
def alone_figure(part: Part) -> Drawn:
    """Layer by head, coloured by the KL of the next token when the head alone is replaced."""
    heads = [(layer, head) for metric, layer, head in part.alone if metric == "kl_alone"]
    layers, number = max(layer for layer, _ in heads) + 1, max(head for _, head in heads) + 1
    values = np.full((number, layers), np.nan)
    for layer, head in heads:
        values[head, layer] = max(part.of_head("kl_alone", layer, head).value or 0.0, LEAST)
    figure, axes = panels(1)
    axis = axes[0]
    drawn = axis.pcolormesh(values.T, norm="log", cmap="cividis", edgecolors="face", linewidth=0.1)
    grid_labels(axis, range(layers), number, "one head at a time", first=True)
    said = {place: f"KL {interval(part.of_head('kl_alone', *place))} nats" for place in heads}
    saying_cells(axis, said, range(layers))
    figure.colorbar(drawn, ax=axis, label="KL of the next token (nats)")
    return figure


@styled
def repetition_figure(part: Part) -> Drawn:
    """Repetition of continuations against the share of heads, and against nats lost."""
    figure, (left, right) = panels(2, sharey=True)
    arms = dict.fromkeys((arm, one.order, one.family) for arm, one in part.written)
    for index, (arm, order, family) in enumerate(arms):
        sets = [one for name, one in part.written if (name, one.order, one.family) == (arm, order, family)]
        label = f"{arm}{'' if arm == order else f' in heads of {order}'}{', random' if family == 'random' else ''}"
        found = [part.mean(REPEATED, arm, one.condition) for one in sets]
        points(left, [100 * s.factors["share"] for s in sets], found, index, label, linestyle="-", linewidth=1)
        nats = [part.mean(LOST, arm, one.condition).value for one in sets]
        known = [(x, y) for x, y in zip(nats, found, strict=True) if x is not None]
        points(right, [x for x, _ in known], [y for _, y in known], index, label, linestyle="-", linewidth=1)
    model = part.of_model(REPEATED).value
    for axis in (left, right) if model is not None else ():
        axis.axhline(model, color=BLACK, linestyle="--", linewidth=1)
    left.set(xlabel="share of heads (%)", ylabel=REPEATED)
    right.set(xlabel="nats lost per token")
    legend(right, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=6)
    return figure
