"""Figures of a run as SVG: what was measured with error bars, what theory says as lines, readable in print."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness.core.records import Interval

# Colours that differ for colour-blind readers and in grey (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    "svg.hashsalt": "ccmc",  # the same rows give the same file
    "svg.fonttype": "none",  # text stays text
}

WIDTH = 7.2  # inches, a text block of a page


def panels(number: int, height: float = 2.9) -> tuple[Figure, list[Any]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, number, squeeze=False)[0])


def legend(axis: Any, **style: Any) -> None:
    """A legend, where the axis has anything to name."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(**style)


def intervals_of(frame: pd.DataFrame) -> list[Interval]:
    """The value of each row with its interval."""

    def plain(value: Any) -> float | None:
        return None if pd.isna(value) else float(value)

    return [
        Interval(plain(row["value"]), plain(row["low"]), plain(row["high"]), int(row["n"]))
        for _, row in frame[["value", "low", "high", "n"]].iterrows()
    ]


def points(axis: Any, x: Any, found: list[Interval], index: int, label: str | None, **style: Any) -> None:
    """Measurements with their intervals; those without a value are left out."""
    kept = [(a, f) for a, f in zip(x, found, strict=True) if f.value is not None]
    if not kept:
        return
    value = np.array([f.value for _, f in kept], dtype=float)
    low = np.array([f.value if f.low is None else f.low for _, f in kept], dtype=float)
    high = np.array([f.value if f.high is None else f.high for _, f in kept], dtype=float)
    bars = np.maximum(np.stack([value - low, high - value]), 0.0)
    settings: dict[str, Any] = {"linestyle": "none", "marker": MARKERS[index], "color": COLOURS[index], **style}
    axis.errorbar([a for a, _ in kept], value, bars, label=label, **settings)


def makers() -> Mapping[str, Callable[[pd.DataFrame], Any]]:
    """The figure of each experiment that has one, by its kind."""
    from harness.experiments._shared import paper_plots

    return paper_plots.FIGURES


def draw(rows: pd.DataFrame) -> dict[str, Any]:
    """The figures of the experiments among the rows.

    Returns:
        name -> matplotlib figure.
    """
    import matplotlib

    figures = {}
    with matplotlib.rc_context(STYLE):
        for kind, make in makers().items():
            part = rows[rows["experiment"] == kind]
            if len(part):
                figures[kind] = make(part)
    return figures


def write_plots(run: Path, rows: pd.DataFrame) -> list[Path]:
    """Write the figures of a run to its folder `plots`.

    Args:
        run: the run directory.
        rows: its rows.

    Returns:
        The files, one per figure.
    """
    import matplotlib

    written = []
    for name, figure in draw(rows).items():
        folder = run / "plots"
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.svg"
        with matplotlib.rc_context(STYLE):
            figure.savefig(path, metadata={"Date": None})
        written.append(path)
    return written
