"""Tables, answers and runs as CSV and JSON: every digit, for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.core.records import Answer, Cell, Column, Interval, Table

HEADER = ("table", "row", "column", "value", "low", "high", "n")


def _figure(value: float | None) -> float | None:
    """A number that JSON can hold."""
    return None if value is None or (isinstance(value, float) and not math.isfinite(value)) else value


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Interval):
        return {name: _figure(value) if name != "missing" else value for name, value in asdict(cell).items()}
    return cell if isinstance(cell, str | bool | int) else _figure(cell)


def _line(cell: Cell) -> list[Any]:
    """value, low, high and n of a cell; empty where there is none."""
    if isinstance(cell, Interval):
        return ["" if part is None else part for part in (cell.value, cell.low, cell.high, cell.n)]
    return ["" if cell is None else cell, "", "", ""]


def to_csv(tables: Sequence[Table]) -> str:
    """One line per cell: table, row (from 1), column, value, low, high, n."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for table in tables:
        for number, row in enumerate(table.rows, start=1):
            for column, cell in zip(table.columns, row, strict=True):
                writer.writerow([table.name, number, column.name, *_line(cell)])
    return out.getvalue()


def table_record(table: Table) -> dict[str, Any]:
    """A table as JSON can hold it; an interval becomes {value, low, high, n, missing}."""
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "columns": [{"name": column.name, "unit": column.unit} for column in table.columns],
        "rows": [[_plain(cell) for cell in row] for row in table.rows],
    }


def answer_record(answer: Answer) -> dict[str, Any]:
    """An answer as JSON can hold it."""
    return {
        "question": answer.question,
        "text": answer.text,
        "estimate": _plain(answer.estimate),
        "answered": answer.answered,
    }


def to_json(content: Any) -> str:
    """JSON with a line break at the end; NaN and infinity are refused."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def answers_table(answers: Sequence[Answer]) -> Table:
    """Answers as a table, so that a CSV file holds them too."""
    columns = [Column("question", left=True), Column("answer", left=True), Column("estimate"), Column("answered")]
    rows: list[list[Cell]] = [[one.question, one.text, one.estimate, one.answered] for one in answers]
    return Table("answers", "Answers", columns, rows)
