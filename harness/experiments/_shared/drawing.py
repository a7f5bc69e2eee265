"""Drawing helpers of experiments: panels, points with intervals, estimates beside each other, maps of heads.

Functions that return a figure are drawn in the style of `harness.core.style`; the others add to axes of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.core.format import interval
from harness.core.records import Interval
from harness.core.style import INK, WIDTH, answering, saying, saying_at, series, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 4  # maps side by side
NARROWEST = 1.9  # inches of one, so that its title does not touch that of its neighbour
Estimate = tuple[str, Interval]


def figure_of(width: float, height: float, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Figure, list[Any]]:
    """A figure in inches, and its axes row by row; to be called by functions that are `styled`.

    Args:
        width, height: of the whole.
        columns, rows: of panels.
        **options: of matplotlib's `subplots`, such as sharey.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).ravel())


def panels(number: int, height: float = 2.9, **options: Any) -> tuple[Figure, list[Any]]:
    """A figure as wide as a page's text, with panels side by side."""
    return figure_of(WIDTH, height, number, **options)


def legend(axis: Any, **options: Any) -> None:
    """A legend, where the axis has anything to name."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(**options)


def intervals_of(frame: pd.DataFrame) -> list[Interval]:
    """The value of each row with the interval that the row carries."""

    def plain(value: Any) -> float | None:
        return None if pd.isna(value) else float(value)

    return [
        Interval(plain(value), plain(low), plain(high), int(n))
        for value, low, high, n in frame[["value", "low", "high", "n"]].itertuples(index=False)
    ]


def points(axis: Any, x: Any, found: Sequence[Interval], index: int, label: str | None, **options: Any) -> None:
    """Measurements with their intervals; those without a value are left out.

    Args:
        axis: of a matplotlib figure.
        x: [n] places.
        found: [n] the measurements there.
        index: of the series, for its colour and marker.
        label: in the legend.
        **options: of matplotlib's `errorbar`.
    """
    kept = [(a, f) for a, f in zip(x, found, strict=True) if f.value is not None]
    if not kept:
        return
    value = np.array([f.value for _, f in kept], dtype=float)
    low = np.array([f.value if f.low is None else f.low for _, f in kept], dtype=float)
    high = np.array([f.value if f.high is None else f.high for _, f in kept], dtype=float)
    bars = np.maximum(np.stack([value - low, high - value]), 0.0)  # a corrected interval need not hold the estimate
    settings: dict[str, Any] = {"linestyle": "none", **series(index), **options}
    axis.errorbar([a for a, _ in kept], value, bars, label=label, **settings)
    for a, one in kept if answering() else ():
        (above,) = axis.plot([a], [one.value], marker="o", markersize=9, alpha=0.0, label="_", zorder=10)
        saying_at(above, label or "", float(a), interval(one))


def short(text: str, signs: int) -> str:
    """A label that leaves room for the picture; tables have it in full."""
    return text if len(text) <= signs else text[: signs - 1] + "…"


def grid_labels(axis: Any, layers: Sequence[int], heads: int, title: str, first: bool = True) -> None:
    """Title and ticks of a map with layers down and heads across.

    Args:
        axis: of a matplotlib figure.
        layers: the number of each row.
        heads: how many columns.
        title: above the map.
        first: whether it is the leftmost map, the one that names the rows.
    """
    axis.set_title(title)
    axis.set_xlabel("head")
    axis.invert_yaxis()
    step, across = max(1, len(layers) // 10), max(1, heads // 8)
    axis.set_yticks(np.arange(len(layers))[::step] + 0.5, [str(layer) for layer in layers][::step])
    axis.set_xticks(np.arange(heads)[::across] + 0.5, [str(head) for head in range(heads)][::across])
    if first:
        axis.set_ylabel("layer")


def saying_cells(axis: Any, cells: Mapping[tuple[int, int], str], layers: Sequence[int]) -> None:
    """Let the cells of a map say what they are when they are pointed at.

    Args:
        axis: with the map, layers down and heads across.
        cells: (layer, head) -> what it says.
        layers: the number of each row.
    """
    from matplotlib.patches import Rectangle

    rows = {layer: row for row, layer in enumerate(layers)}
    for (layer, head), text in cells.items() if answering() else ():
        cell = Rectangle((head, rows[layer]), 1, 1, alpha=0.0, zorder=10)
        saying(cell, f"head {layer}.{head}: {text}", f"{layer}.{head}")
        axis.add_patch(cell)


@styled
def heat_maps(values: Mapping[str, np.ndarray[Any, Any]], layers: Sequence[int]) -> Figure:
    """Layer x head, one map per surrogate, of the share explained; a dash marks what is below 0.

    Args:
        values: surrogate -> [layers, heads], NaN where there is no value.
        layers: the number of each row.
    """
    heads, columns = next(iter(values.values())).shape[1], min(len(values), ACROSS)
    rows = -(-len(values) // columns)
    width = max(4.0, columns * max(NARROWEST, 0.7 + 0.14 * heads))
    height = rows * (1.2 + 0.16 * len(layers))
    figure, axes = figure_of(width, height, columns, rows)
    drawn = None
    for axis in axes[len(values) :]:
        axis.set_visible(False)
    for number, (axis, (surrogate, map_)) in enumerate(zip(axes, values.items(), strict=False)):
        shown = np.ma.masked_invalid(np.clip(map_, -1.0, 1.0))
        drawn = axis.pcolormesh(shown, cmap="PuOr_r", vmin=-1.0, vmax=1.0, edgecolors="face", linewidth=0.1)
        below = np.argwhere(np.nan_to_num(map_) < 0)  # in grey, purple and orange are the same
        axis.scatter(below[:, 1] + 0.5, below[:, 0] + 0.5, marker="_", s=14, color="#ffffff", linewidths=2.2)
        axis.scatter(below[:, 1] + 0.5, below[:, 0] + 0.5, marker="_", s=10, color="#111111", linewidths=1.0)
        grid_labels(axis, layers, heads, short(surrogate, 18), first=number % columns == 0)
    assert drawn is not None
    bar = figure.colorbar(drawn, ax=axes, shrink=0.9, pad=0.01)
    bar.set_label("explained (cut at -1)")
    if bar.solids is not None:
        bar.solids.set_rasterized(False)
    return figure


@styled
def dot_plot(groups: Mapping[str, Sequence[Estimate]], label: str, zero: bool = False) -> Figure:
    """Estimates with their intervals, one line per label, one colour and marker per group.

    Args:
        groups: series -> (label, interval); labels are the same everywhere.
        label: of the axis of values.
        zero: draw a line at 0.
    """
    rows = list(dict.fromkeys(text for estimates in groups.values() for text, _ in estimates))
    figure, (axis,) = figure_of(7.0, 0.9 + 0.18 * len(rows) * max(1, len(groups)) + 0.22 * len(groups))
    for index, (name, estimates) in enumerate(groups.items()):
        offset = (index - (len(groups) - 1) / 2) * 0.7 / max(1, len(groups))
        look = series(index)
        for text, found in estimates:
            if found.value is None:
                continue
            place = rows.index(text) + offset
            if found.low is not None and found.high is not None:
                axis.plot([found.low, found.high], [place, place], color=look["color"], linewidth=1.6)
            axis.plot([found.value], [place], markersize=5, **look)
        axis.plot([], [], linestyle="none", label=short(name, 40), **look)
    axis.set_yticks(range(len(rows)), [short(text, 30) for text in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel(label)
    axis.grid(axis="x", color=INK, alpha=0.15)
    if zero:
        axis.axvline(0.0, color=INK, linewidth=0.8)
    if len(groups) > 1 or next(iter(groups), ""):
        figure.legend(loc="outside upper left", ncols=min(4, len(groups)))
    return figure
