"""The records that cross rooms: an estimate, a table, an answer in words and a figure. They hold data, not text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate over units with its confidence interval."""

    value: float | None
    """The estimate; None where it is undefined."""
    low: float | None
    """Lower end; None where no honest interval exists."""
    high: float | None
    """Upper end; None exactly where `low` is."""
    n: int
    """Number of units."""
    missing: str | None = None
    """Why the estimate or its interval is missing; None where nothing is."""


Cell = str | int | float | Interval | None
"""What a table holds at one place; None is shown as a dash."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    """Header, short."""
    unit: str = ""
    """Shown behind the name, such as "nats"."""
    priority: int = 0
    """0: always shown. Where a table is too wide, the columns with the largest number are left out first."""
    signed: bool = False
    """Numbers carry a plus sign: differences."""
    left: bool = False
    """Aligned to the left: words."""

    @property
    def header(self) -> str:
        """Name and unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Table:
    """Figures in rows and columns, before they are formatted."""

    name: str
    """Short and unique within a run, such as "heads.explained": what `ccmc show RUN NAME` selects."""
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    """What does not vary over the table, how figures were made, and what the intervals resample."""
    headline: bool = False
    """The one small table of its experiment that is shown by default: at most 12 rows and 100 characters wide."""
    marked: frozenset[tuple[int, int]] = frozenset()
    """(row, column) of the cells that stand out, counted from 0: bold, or a star where nothing can be bold."""
    mark: str = ""
    """What a marked cell is, such as "the best of its group"."""

    def column(self, name: str) -> list[Cell]:
        """The cells of one column, from top to bottom."""
        index = [column.name for column in self.columns].index(name)
        return [row[index] for row in self.rows]


@dataclass(frozen=True)
class Answer:
    """What a run says about one question, in a sentence or two with figure and interval."""

    question: str
    """What was to be found out, such as "Which surrogate is closest to attention?"."""
    text: str
    """The answer, or why there is none."""
    estimate: Interval | None = None
    """The figure behind it."""
    answered: bool = True
    """False where the run could not answer the question."""


@dataclass(frozen=True)
class Figure:
    """A picture that is drawn when it is wanted."""

    name: str
    """File name without ending."""
    title: str
    about: str
    """One sentence: what points, lines and bars are."""
    draw: Callable[[], Any] = field(repr=False, compare=False)
    """Returns a matplotlib figure, drawn in the style of `core.style`."""
    wide: bool = True
