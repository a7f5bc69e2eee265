"""From rows to what people read: answers, tables and figures, each made by the experiment that made the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from harness.core import registry
from harness.core.records import Answer, Figure, Table
from harness.core.style import STYLE


def _parts(rows: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Each experiment among the rows, in the order of the declarations, with its rows."""
    present = set(rows["experiment"].dropna().unique())
    for kind in registry.experiments():
        if kind in present:
            yield registry.experiment(kind), rows[rows["experiment"] == kind]


def tables(rows: pd.DataFrame) -> list[Table]:
    """The tables of every experiment among the rows."""
    return [table for experiment, part in _parts(rows) for table in experiment.tables(part)]


def answers(rows: pd.DataFrame) -> list[Answer]:
    """The answers of every experiment among the rows."""
    return [answer for experiment, part in _parts(rows) for answer in experiment.answers(part)]


def figures(rows: pd.DataFrame, trajectories: pd.DataFrame) -> list[Figure]:
    """The figures of every experiment among the rows."""
    return [figure for experiment, part in _parts(rows) for figure in experiment.figures(part, trajectories)]


def write_figures(folder: Path, made: list[Figure]) -> list[Path]:
    """Draw figures into SVG files.

    Args:
        folder: where they go; made where there is anything to draw.
        made: of `figures`.

    Returns:
        The files, one per figure.
    """
    import matplotlib

    written = []
    for figure in made:
        folder.mkdir(exist_ok=True)
        path = folder / f"{figure.name}.svg"
        with matplotlib.rc_context(STYLE):
            figure.draw().savefig(path, metadata={"Date": None})
        written.append(path)
    return written
