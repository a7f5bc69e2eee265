"""Tables, answers and runs as CSV and JSON: every digit, for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.core.records import Answer, Cell, Column, Interval, Table
from harness.report.render.cells import is_unseen, visible

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"\s*[=+\-@\t\r]")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
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
    return ["" if cell is None else csv_text(cell), "", "", ""]


def csv_text(value: Any) -> Any:
    """A value for a CSV file: a text that a spreadsheet would compute gets an apostrophe in front.

    Args:
        value: texts change, all else stays. A text that is a number, such as "-1.5", stays too.
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else text


def frame_csv(frame: pd.DataFrame) -> str:
    """A frame of figures as CSV, its texts as `csv_text` gives them."""
    texts = [str(name) for name in frame if frame[name].map(lambda value: isinstance(value, str)).any()]
    return frame.assign(**{name: frame[name].map(csv_text) for name in texts}).to_csv(index=False)


def to_csv(tables: Sequence[Table]) -> str:
    """One line per cell: table, row (from 1), column, value, low, high, n."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for table in tables:
        for number, row in enumerate(table.rows, start=1):
            for column, cell in zip(table.columns, row, strict=True):
                writer.writerow([csv_text(table.name), number, csv_text(column.name), *_line(cell)])
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


def _escaped(text: str) -> str:
    """Signs as JSON escapes."""
    return json.dumps(text)[1:-1] if text != "\x7f" else "\\u007f"


def to_json(content: Any) -> str:
    """JSON with a line break at the end; NaN and infinity are refused; signs without a shape are escaped."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    return text if text.isprintable() else "".join(_escaped(one) if is_unseen(one) else one for one in text)


def ascii_json(text: str) -> str:
    """JSON without a sign beyond ASCII; a program reads the same from it."""
    return "".join(one if one.isascii() else _escaped(one) for one in text)


def answers_table(answers: Sequence[Answer]) -> Table:
    """Answers as a table, so that a CSV file holds them too."""
    columns = [Column("question", left=True), Column("answer", left=True), Column("estimate"), Column("answered")]
    rows: list[list[Cell]] = [[one.question, one.text, one.estimate, one.answered] for one in answers]
    return Table("answers", "Answers", columns, rows)
