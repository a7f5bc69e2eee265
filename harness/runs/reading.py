"""What the rows of a run say: answers, tables and figures of every experiment that they come from.

Each experiment reads its own rows; one that fails loses its own part and a line says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.core import registry, style
from harness.core.errors import StorageError, one_line
from harness.core.format import file_safe
from harness.core.once import settle
from harness.core.records import Answer, Figure, Table
from harness.runs.writing import storing, write_atomic

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
Split: TypeAlias = "list[tuple[str, pd.DataFrame]]"
"""The rows of a run by experiment; tables, answers and figures that are given the same one read it once."""


@dataclass(frozen=True)
class Reading:
    """What the rows of one experiment say."""

    kind: str
    """The experiment."""
    answers: tuple[Answer, ...] = ()
    """In its own order."""
    tables: tuple[Table, ...] = ()
    """The headline first."""
    problems: tuple[str, ...] = ()
    """A line for each part that could not be made."""

    @property
    def headline(self) -> Table | None:
        """The one table that is shown by default."""
        return next((table for table in self.tables if table.headline), None)


def _made(kind: str, what: str, make: Callable[[], Iterable[T]]) -> tuple[tuple[T, ...], tuple[str, ...]]:
    """What an experiment makes of its rows; nothing and a line where it fails."""
    try:
        return tuple(make()), ()
    except Exception as error:
        return (), (f"{kind}: its {what} cannot be made of these rows: {type(error).__name__}: {one_line(error)}",)


def split(rows: pd.DataFrame) -> Split:
    """(kind, its rows) of every declared experiment that the rows come from, in their declared order."""
    quick, numbered = _shared_texts(rows)
    codes, kinds = numbered.get("experiment") or pd.factorize(quick["experiment"])
    found = []
    for kind in registry.experiments():
        own = codes == list(kinds).index(kind) if kind in kinds else np.zeros(len(codes), dtype=np.bool_)
        if own.all() and own.size:
            found.append((kind, settle(quick, numbered)))
        elif own.any():
            found.append((kind, settle(quick[own], {name: (of[own], texts) for name, (of, texts) in numbered.items()})))
    return found


def _shared_texts(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, tuple[NDArray[np.intp], pd.Index]]]:
    """The same rows whose texts are Python's, each kept once: selecting rows copies references, not characters.

    Returns:
        The rows; of each column of texts the number of every row's text, and the texts.
    """
    made, numbered = {}, {}
    for name in rows.columns:
        column = rows[name]
        if isinstance(column.dtype, pd.StringDtype | pd.CategoricalDtype):
            coded = isinstance(column.dtype, pd.CategoricalDtype)
            codes, values = (column.cat.codes, column.cat.categories) if coded else pd.factorize(column)
            codes, texts = np.asarray(codes, dtype=np.intp), values.to_numpy(dtype=object)
            made[name] = pd.Series(np.append(texts, np.nan)[codes], rows.index, dtype=object)
            numbered[name] = codes, pd.Index(texts, dtype=object)
    return rows.assign(**made), numbered


def _parts(rows: pd.DataFrame | Split) -> Split:
    return rows if isinstance(rows, list) else split(rows)


def read(rows: pd.DataFrame | Split) -> list[Reading]:
    """Answers and tables, one reading per experiment.

    Args:
        rows: of one or more runs; or what `split` made of them.
    """
    return [_read(kind, part) for kind, part in _parts(rows)]


def _read(kind: str, part: pd.DataFrame) -> Reading:
    answers, lost = _made(kind, "answers", lambda: registry.experiment(kind).answers(part))
    tables, gone = _made(kind, "tables", lambda: registry.experiment(kind).tables(part))
    return Reading(kind, answers, tables, lost + gone)


def _all(rows: pd.DataFrame | Split, what: str, make: Callable[[Any, pd.DataFrame], Iterable[T]]) -> list[T]:
    """One kind of thing of every experiment; a warning for each that fails."""
    found: list[T] = []
    for kind, part in _parts(rows):
        made, problems = _made(kind, what, partial(_make, make, kind, part))
        found += made
        for problem in problems:
            warnings.warn(problem, stacklevel=3)
    return found


def _make(make: Callable[[Any, pd.DataFrame], Iterable[T]], kind: str, part: pd.DataFrame) -> Iterable[T]:
    return make(registry.experiment(kind), part)


def answers(rows: pd.DataFrame | Split) -> list[Answer]:
    """What the rows say in words, by experiment; warns where an experiment fails."""
    return _all(rows, "answers", lambda experiment, part: experiment.answers(part))


def tables(rows: pd.DataFrame | Split) -> list[Table]:
    """All tables about the rows, by experiment; warns where an experiment fails."""
    return _all(rows, "tables", lambda experiment, part: experiment.tables(part))


def figures(rows: pd.DataFrame | Split, trajectories: pd.DataFrame) -> list[Figure]:
    """All pictures of the rows, by experiment; warns where an experiment fails.

    Args:
        rows: of a run.
        trajectories: its continuations, which experiments share; may be empty.
    """
    return _all(rows, "figures", lambda experiment, part: experiment.figures(part, trajectories))


def file_name(figure: Figure) -> str:
    """The name of a figure's file, without signs that a file system or a shell reads."""
    return f"{file_safe(figure.name)}.svg"


def write_figures(run_path: Path, figures: Iterable[Figure]) -> list[Path]:
    """Draw figures into the folder `plots` of a run; one that cannot be drawn is left out with a warning.

    Args:
        run_path: the run directory.
        figures: what is drawn; the same rows give the same bytes.

    Returns:
        The files, one per figure.

    Raises:
        StorageError: the disk is full, read-only or broken; figures that were there before are as they were.
    """
    written = []
    for figure in figures:
        path = run_path / "plots" / file_name(figure)
        try:
            with style.context(figure.name):
                drawn, picture = style.laid_out(figure.draw()), BytesIO()
                drawn.savefig(picture, format="svg", metadata={"Date": None})
            with storing(path):
                path.parent.mkdir(exist_ok=True)
            write_atomic(path, picture.getvalue())
        except StorageError:
            raise
        except Exception as error:
            warnings.warn(f"figure {figure.name} cannot be drawn: {one_line(error)}", stacklevel=2)
            continue
        written.append(path)
    return written
