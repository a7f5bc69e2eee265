"""The pictures of a report, as SVG that takes the colour of the text around it, so that it is right on dark paper."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import numpy as np

from harness.core.records import Interval
from harness.experiments._shared.tables import Table

INK = "#010203"  # becomes currentColor
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa8800", "#3399bb", "#aa3377", "#888888", "#dd7733")
ACROSS = 4  # maps side by side
Estimate = tuple[str, Interval]
P = ParamSpec("P")


def styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw with text as text; a name such as `$x` is no formula."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> str:
        from matplotlib import rc_context

        settings: Any = {
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 9,
            "text.parse_math": False,
            "text.usetex": False,
        }
        with rc_context(settings):
            return draw(*args, **kwargs)

    return wrapped


def figure_of(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, list[Any]]:
    """A figure in inches, and its axes row by row, in the ink that becomes the colour of the text around it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes:
        axis.patch.set_alpha(0)
        axis.tick_params(colors=INK)
        for side, spine in axis.spines.items():
            spine.set_color(INK)
            spine.set_visible(side in {"left", "bottom"})
    return figure, axes


def inline_svg(figure: Any, name: str) -> str:
    """The figure as an `<svg>` element: no prolog, no metadata, text as text, ids of its own, black as currentColor."""
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None})
    text = out.getvalue()
    text = re.sub(f"{INK}|#000000", "currentColor", text[text.index("<svg") :])
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W", "-", name)
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(href=")#|(url\()#', lambda m: f"{m.group(1) or m.group(2)}#{prefix}-", text)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', lambda m: m.group(1) or "", text, count=2)


def _short(text: str, signs: int) -> str:
    """A label that leaves room for the picture; tables have it in full."""
    return text if len(text) <= signs else text[: signs - 1] + "…"


def grid_labels(axis: Any, layers: Sequence[int], heads: int, title: str, first: bool = True) -> None:
    """Title and ticks of a map with layers down and heads across."""
    axis.set_title(title, color=INK, fontsize=9)
    axis.set_xlabel("head", color=INK)
    axis.invert_yaxis()
    step, across = max(1, len(layers) // 10), max(1, heads // 8)
    axis.set_yticks(np.arange(len(layers))[::step] + 0.5, [str(layer) for layer in layers][::step])
    axis.set_xticks(np.arange(heads)[::across] + 0.5, [str(head) for head in range(heads)][::across])
    if first:
        axis.set_ylabel("layer", color=INK)


@styled
def heat_maps(values: dict[str, np.ndarray[Any, Any]], layers: Sequence[int], name: str) -> str:
    """Layer x head, one map per surrogate, of the share explained; a dash marks what is below 0.

    Args:
        values: surrogate -> [layers, heads], NaN where there is no value.
        layers: the number of each row.
        name: makes the ids of the SVG its own.

    Returns:
        An `<svg>` element.
    """
    heads, columns = next(iter(values.values())).shape[1], min(len(values), ACROSS)
    rows = -(-len(values) // columns)
    width, height = max(4.0, columns * (0.7 + 0.14 * heads)), rows * (1.2 + 0.16 * len(layers))
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
        grid_labels(axis, layers, heads, _short(surrogate, 18), first=number % columns == 0)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.9, pad=0.01)
    bar.set_label("explained (cut at -1)", color=INK)
    bar.ax.tick_params(colors=INK)
    bar.solids.set_rasterized(False)
    return inline_svg(figure, name)


@styled
def dot_plot(groups: dict[str, list[Estimate]], label: str, name: str, zero: bool = False) -> str:
    """Estimates with their intervals, one line per label, one colour and marker per group.

    Args:
        groups: series -> (label, interval); labels are the same everywhere.
        label: of the axis of values.
        name: makes the ids of the SVG its own.
        zero: draw a line at 0.

    Returns:
        An `<svg>` element.
    """
    rows = list(dict.fromkeys(text for series in groups.values() for text, _ in series))
    figure, (axis,) = figure_of(7.0, 0.9 + 0.18 * len(rows) * max(1, len(groups)) + 0.22 * len(groups))
    for index, (series, estimates) in enumerate(groups.items()):
        offset = (index - (len(groups) - 1) / 2) * 0.7 / max(1, len(groups))
        for text, found in estimates:
            if found.value is None:
                continue
            place = rows.index(text) + offset
            colour = _COLOURS[index % len(_COLOURS)]
            if found.low is not None and found.high is not None:
                axis.plot([found.low, found.high], [place, place], color=colour, linewidth=1.6)
            axis.plot([found.value], [place], marker="osD^vP*X"[index % 8], color=colour, markersize=5)
        axis.plot([], [], marker="osD^vP*X"[index % 8], color=_COLOURS[index % len(_COLOURS)], label=_short(series, 40))
    axis.set_yticks(range(len(rows)), [_short(text, 30) for text in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlabel(label, color=INK)
    axis.grid(axis="x", color=INK, alpha=0.15)
    if zero:
        axis.axvline(0.0, color=INK, linewidth=0.8)
    if len(groups) > 1 or next(iter(groups)):
        legend = figure.legend(loc="outside upper left", ncols=min(4, len(groups)), frameon=False, fontsize=8)
        for text in legend.get_texts():
            text.set_color(INK)
    return inline_svg(figure, name)


@styled
def curves_svg(found: Sequence[tuple[Table, dict[str, list[Estimate]]]]) -> str:
    """Curves over revisions, one panel per experiment, as the text of an SVG file."""
    figure, axes = figure_of(5.0 * len(found), 3.6, len(found))
    for axis, (table, curves) in zip(axes, found, strict=True):
        for index, (surrogate, points) in enumerate(curves.items()):
            colour = _COLOURS[index % len(_COLOURS)]
            labels = [label for label, _ in points]
            values = [np.nan if p.value is None else p.value for _, p in points]
            axis.plot(labels, values, marker="osD^vP*X"[index % 8], color=colour, label=surrogate)
            for label, p in points:
                if p.low is not None and p.high is not None:
                    axis.plot([label, label], [p.low, p.high], color=colour, linewidth=1)
        axis.set_title(table.title, color=INK, fontsize=8)
        axis.set_xlabel("revision", color=INK)
        axis.legend(frameon=False, labelcolor=INK, fontsize=7)
    return inline_svg(figure, "curves").replace("currentColor", "#222222") + "\n"
