"""Pictures of a heads run, as SVG: what surrogates explain of every head, and what every head looks at."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from harness.experiments.heads.tables import Head, heads_of
from harness.measures.head_kinds import KINDS
from harness.report.page_data import heat_map_values
from harness.report.pictures import INK, figure_of, grid_labels, heat_maps, inline_svg, styled
from harness.surrogates import LADDER

# colours that differ for colour-blind readers (Okabe and Ito 2008), and a letter for print
LOOKS = {
    "previous-token": ("#56B4E9", "P"),
    "induction": ("#E69F00", "I"),
    "duplicate-token": ("#009E73", "D"),
    "sink": ("#CCCCCC", "S"),
    "content": ("#F0E442", "C"),
    "position": ("#CC79A7", "d"),
    "mixed": ("#FFFFFF", "m"),
}
assert set(LOOKS) == set(KINDS)
INK_IN_FILES = "#222222"


@styled
def kinds_map(heads: list[Head], name: str) -> str:
    """Layer x head: what each head looks at, by colour and letter.

    Args:
        heads: with a kind each.
        name: makes the ids of the SVG its own.

    Returns:
        An `<svg>` element.
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
            letter = LOOKS[head.kind][1]
            axis.text(head.head + 0.5, at + 0.5, letter, ha="center", va="center", fontsize=7, color="#111111")
    colours = ListedColormap([LOOKS[kind][0] for kind in KINDS])
    axis.pcolormesh(np.ma.masked_invalid(grid), cmap=colours, vmin=-0.5, vmax=len(KINDS) - 0.5, edgecolors="face")
    grid_labels(axis, layers, width, "what each head looks at")
    counted = {kind: sum(head.kind == kind for head in heads) for kind in KINDS}
    patches = [
        Patch(facecolor=LOOKS[kind][0], edgecolor=INK, linewidth=0.5, label=f"{LOOKS[kind][1]}  {kind} ({n})")
        for kind, n in counted.items()
        if n
    ]
    figure.legend(handles=patches, loc="outside right upper", frameon=False, fontsize=8, labelcolor=INK)
    return inline_svg(figure, name)


def head_pictures(rows: pd.DataFrame, prefix: str) -> dict[tuple[str, str, str], str]:
    """The pictures of every model and strategy.

    Args:
        rows: of a run.
        prefix: of the ids inside the SVGs.

    Returns:
        (model, strategy, `explained` or `kinds`) -> `<svg>` element.
    """
    made = {}
    for number, ((model, strategy), (maps, layers)) in enumerate(heat_map_values(rows).items()):
        order = [name for name in LADDER if name in maps] + sorted(set(maps) - set(LADDER))
        made[model, strategy, "explained"] = heat_maps({n: maps[n] for n in order}, layers, f"{prefix}-heat-{number}")
        heads = heads_of(rows, model, strategy)
        if any(head.kind for head in heads):
            made[model, strategy, "kinds"] = kinds_map(heads, f"{prefix}-kinds-{number}")
    return made


def write_head_plots(run: Path, rows: pd.DataFrame) -> list[Path]:
    """Draw the heads of a run into its folder `plots`.

    Args:
        run: the run directory.
        rows: its rows.

    Returns:
        The files, one per picture; none where the run has no heads.
    """
    written = []
    for (model, strategy, what), svg in head_pictures(rows, "heads").items():
        (run / "plots").mkdir(exist_ok=True)
        label = re.sub(r"[^A-Za-z0-9.=_-]+", "-", f"heads-{what}-{Path(model).name}-{strategy}")
        path = run / "plots" / f"{label}.svg"
        path.write_text(svg.replace("currentColor", INK_IN_FILES) + "\n", encoding="utf-8")
        written.append(path)
    return written
