"""Figures as SVG inside a page, which take the colour of the text around them; and the curves over revisions."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.core.records import Figure, Interval, Table
from harness.core.style import BLACK, INK, context, laid_out, series, styled, with_titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawn

Curves = dict[str, list[tuple[str, Interval]]]
"""Surrogate -> (revision, figure) in order."""
ON_WHITE = "#222222"


def inline_svg(figure: Figure, name: str) -> str:
    """A figure as an `<svg>` element: no prolog, no metadata, text as text, ids of its own, ink as currentColor.

    Points and cells have titles that say what they are.

    Args:
        figure: is drawn.
        name: makes the ids of the SVG its own.
    """
    with context(name, answers=True):
        return _inline(figure.draw(), name)


def _inline(drawn: Drawn, name: str) -> str:
    out = io.StringIO()
    laid_out(drawn).savefig(
        out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None}
    )
    text = with_titles(out.getvalue())
    text = re.sub(f"{INK}|{BLACK}", "currentColor", text[text.index("<svg") :])
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W", "-", name)
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(href=")#|(url\()#', lambda m: f"{m.group(1) or m.group(2)}#{prefix}-", text)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', lambda m: m.group(1) or "", text, count=2)


@styled
def _curves(found: Sequence[tuple[Table, Curves]]) -> Drawn:
    """Figures of surrogates over revisions, one panel per experiment."""
    from matplotlib.figure import Figure as Made

    figure = Made(figsize=(5.0 * len(found), 3.6), layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (table, curves) in zip(axes, found, strict=True):
        for index, (surrogate, points) in enumerate(curves.items()):
            look = series(index)
            labels = [label for label, _ in points]
            values = [np.nan if p.value is None else p.value for _, p in points]
            axis.plot(labels, values, label=surrogate, **look)
            for label, p in points:
                if p.low is not None and p.high is not None:
                    axis.plot([label, label], [p.low, p.high], color=look["color"], linewidth=1)
        axis.set_title(table.title)
        axis.set_xlabel("revision")
        axis.legend()
    return figure


def curves_svg(found: Sequence[tuple[Table, Curves]]) -> str:
    """Curves over revisions as the text of an SVG file."""
    with context("curves"):
        return _inline(_curves(found), "curves").replace("currentColor", ON_WHITE) + "\n"
