"""Figures of the experiment `heads`: what surrogates explain of every head, and what every head attends to."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.format import file_safe
from harness.core.records import Figure
from harness.core.style import INK, styled
from harness.experiments._shared.drawing import Estimate, dot_plot, figure_of, grid_labels, heat_maps
from harness.experiments._shared.naming import labels
from harness.experiments.heads.parts import COUNTS, Part, parts
from harness.experiments.heads.single_heads import Head, every_head
from harness.measures.head_kinds import KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn

# colours that differ for colour-blind readers (Okabe and Ito 2008), and a letter for print
KIND_LOOKS = {
    "previous-token": ("#56B4E9", "P"),
    "induction": ("#E69F00", "I"),
    "duplicate-token": ("#009E73", "D"),
    "sink": ("#CCCCCC", "S"),
    "content": ("#F0E442", "C"),
    "position": ("#CC79A7", "d"),
    "mixed": ("#FFFFFF", "m"),
}
assert set(KIND_LOOKS) == set(KINDS)


@styled
def kinds_map(heads: list[Head]) -> Drawn:
    """Layer x head: what each head attends to, by colour and letter.

    Args:
        heads: with a kind each, or None.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    layers, width = sorted({head.layer for head in heads}), max(head.head for head in heads) + 1
    grid = np.full((len(layers), width), np.nan)
    figure, (axis,) = figure_of(max(8.0, 2.2 + 0.3 * width), 1.0 + 0.2 * max(len(layers), 7))
    for head in heads:
        if head.kind is not None:
            at = layers.index(head.layer)
            grid[at, head.head] = KINDS.index(head.kind)
            letter = KIND_LOOKS[head.kind][1]
            axis.text(head.head + 0.5, at + 0.5, letter, ha="center", va="center", fontsize=7, color="#111111")
    colours = ListedColormap([KIND_LOOKS[kind][0] for kind in KINDS])
    axis.pcolormesh(np.ma.masked_invalid(grid), cmap=colours, vmin=-0.5, vmax=len(KINDS) - 0.5, edgecolors="face")
    grid_labels(axis, layers, width, "what each head attends to")
    counted = {kind: sum(head.kind == kind for head in heads) for kind in KINDS}
    patches = [
        Patch(facecolor=KIND_LOOKS[kind][0], edgecolor=INK, linewidth=0.5, label=f"{KIND_LOOKS[kind][1]}  {kind} ({n})")
        for kind, n in counted.items()
        if n
    ]
    figure.legend(handles=patches, loc="outside right upper")
    return figure


def explained_maps(heads: list[Head]) -> tuple[dict[str, np.ndarray[Any, Any]], list[int]]:
    """What each surrogate explains of every head.

    Args:
        heads: of one model and strategy.

    Returns:
        surrogate -> [layers, heads], NaN where there is no value; and the number of each layer.
    """
    layers, width = sorted({head.layer for head in heads}), max(head.head for head in heads) + 1
    maps: dict[str, np.ndarray[Any, Any]] = {}
    for head in heads:
        for name, found in head.explained.items():
            if found.value is not None:
                map_ = maps.setdefault(name, np.full((len(layers), width), np.nan))
                map_[layers.index(head.layer), head.head] = found.value
    return {name: maps[name] for name in registry.ladder(maps)}, layers


def _pooled(found: list[Part]) -> dict[str, list[Estimate]]:
    """Model and strategy -> what each surrogate explains of all heads together."""
    return {part.what: [(n, part.interval("explained", n)) for n in part.surrogates if n != COUNTS] for part in found}


def figures(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
    """The pictures of every model and strategy, and one of all heads together.

    Args:
        rows: of the experiment, from one run.
        trajectories: are not drawn here.
    """
    found = [part for part in parts(rows) if any(metric == "explained" for metric, _ in part.samples)]
    if not found:
        return []
    names = labels(list(dict.fromkeys(part.model for part in found)))
    made = [
        Figure(
            "heads-pooled",
            "All heads together: explained",
            "Share of KL(counts) explained, with 95 % intervals over held-out prompts.",
            lambda: dot_plot(_pooled(found), "explained (share of KL of counts)", zero=True),
            wide=False,
        )
    ]
    for part in found:
        heads, end = every_head(rows)[part.key], f"{names[part.model]}-{file_safe(part.strategy)}"
        if explained_maps(heads)[0]:
            made.append(
                Figure(
                    f"heads-explained-{end}",
                    f"Heads of {part.what}: explained",
                    "Share of KL(counts) explained in each head. Orange: all of it; white: none; purple with a dash: "
                    "worse than counts.",
                    partial(lambda heads: heat_maps(*explained_maps(heads)), heads),
                )
            )
        if any(head.kind for head in heads):
            made.append(
                Figure(
                    f"heads-kinds-{end}",
                    f"Heads of {part.what}: kinds",
                    "What each head attends to, by its scores; the table heads.by-kind defines the kinds.",
                    partial(kinds_map, heads),
                )
            )
    return made
