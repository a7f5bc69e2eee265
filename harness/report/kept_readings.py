"""What a complete run says, kept: printed again, it costs no second reading of the rows. See `harness.report.kept`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, astuple
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.core.lazy import LazyRows
from harness.core.records import Answer, Cell, Column, Interval, Table
from harness.report import kept
from harness.runs.reading import Reading, read

if TYPE_CHECKING:
    from harness.runs.run import Run


def readings(run: Run) -> list[Reading]:
    """Answers and tables of a run, as `harness.runs.reading.read` makes them.

    Args:
        run: an opened run; one that is complete is looked up first.
    """
    name = kept.name_of(run)
    if name is None:
        return read(run.split)
    fresh = _Fresh(run)
    with suppress(*kept.NO_ENTRY):
        return [_reading(fresh, one) for one in kept.look_up(name)]
    return fresh.readings


def keep(run: Run, found: Sequence[Reading]) -> None:
    """Keep what was made of a run: its answers, and the tables whose rows were looked at.

    Nothing is kept where nothing or not everything could be made: the reason may be gone the next time.
    """
    name = kept.name_of(run)
    if name is not None and found and not any(one.problems for one in found):
        kept.store(name, [_record(one) for one in found])


class _Fresh:
    """What is not kept, made of the rows when it is wanted."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._found: list[Reading] | None = None

    @property
    def readings(self) -> list[Reading]:
        if self._found is None:
            self._found = read(self._run.split)
        return self._found

    def rows(self, kind: str, name: str) -> list[list[Cell]]:
        return next(
            [list(row) for row in table.rows]
            for one in self.readings
            if one.kind == kind
            for table in one.tables
            if table.name == name
        )


def _record(one: Reading) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "problems": one.problems,
        "answers": [
            {**asdict(answer), "estimate": None if answer.estimate is None else astuple(answer.estimate)}
            for answer in one.answers
        ],
        "tables": [_table_record(table) for table in one.tables],
    }


def _table_record(table: Table) -> dict[str, Any]:
    lazy = isinstance(table.rows, LazyRows) and not table.rows.made
    return {
        "name": table.name,
        "title": table.title,
        "columns": [asdict(column) for column in table.columns],
        "rows": None if lazy else [[_cell(cell) for cell in row] for row in table.rows],
        "caption": table.caption,
        "headline": table.headline,
        "marked": sorted(table.marked),
        "mark": table.mark,
    }


def _cell(cell: Cell) -> Any:
    return {"interval": astuple(cell)} if isinstance(cell, Interval) else cell


def _reading(fresh: _Fresh, one: dict[str, Any]) -> Reading:
    answers = tuple(
        Answer(**{**answer, "estimate": None if answer["estimate"] is None else Interval(*answer["estimate"])})
        for answer in one["answers"]
    )
    tables = tuple(_table(fresh, one["kind"], table) for table in one["tables"])
    return Reading(one["kind"], answers, tables, tuple(one["problems"]))


def _table(fresh: _Fresh, kind: str, record: dict[str, Any]) -> Table:
    rows = record["rows"]
    lazy = LazyRows(partial(fresh.rows, kind, record["name"]))
    columns = [Column(**column) for column in record["columns"]]
    marked = frozenset((int(row), int(column)) for row, column in record["marked"])
    body = lazy if rows is None else [[_uncelled(cell) for cell in row] for row in rows]
    return Table(**{**record, "columns": columns, "rows": body, "marked": marked})


def _uncelled(cell: Any) -> Cell:
    return Interval(*cell["interval"]) if isinstance(cell, dict) else cell
