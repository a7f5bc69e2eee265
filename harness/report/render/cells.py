"""One cell of a table as text, the same in every format."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from harness.core.format import interval, number
from harness.core.records import Cell, Column, Interval, Table

DASH = "–"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, marks of direction, half characters, breaks of lines


def is_unseen(sign: str) -> bool:
    """Does a terminal act on this character, or has it no shape? A line break has one."""
    return sign != "\n" and unicodedata.category(sign) in _UNSEEN


def visible(text: str) -> str:
    """Text without signs that a terminal acts on or that have no shape; line breaks stay."""
    if text.isascii():
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
    return "".join(ascii(sign)[1:-1] if is_unseen(sign) else sign for sign in text)


def is_number(cell: Cell) -> bool:
    """A figure, or the dash of a missing one: it is never cut or wrapped."""
    return not isinstance(cell, str)


def cell_text(cell: Cell, column: Column) -> str:
    """A cell as text: three digits, an interval with the same decimals as its value, a dash where there is nothing."""
    if cell is None:
        return DASH
    if isinstance(cell, str):
        return visible(cell)
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, Interval):
        return interval(cell, column.signed)
    if isinstance(cell, int):
        return f"{cell:+d}" if column.signed and cell > 0 else str(cell)
    return number(cell, column.signed)


def body(table: Table, plain: Callable[[str], str] = str, marked: Callable[[str], str] = str) -> list[list[str]]:
    """The cells of a table as text.

    Args:
        table: any table.
        plain: escapes the text of a cell.
        marked: makes the escaped text of a marked cell bold.
    """
    rows = []
    for i, row in enumerate(table.rows):
        texts = [plain(cell_text(cell, column)) for cell, column in zip(row, table.columns, strict=True)]
        rows.append([marked(text) if (i, j) in table.marked else text for j, text in enumerate(texts)])
    return rows


def caption(table: Table, marks: str) -> str:
    """The caption, with a sentence about marked cells where there are any.

    Args:
        table: any table.
        marks: how a marked cell is written, such as "Bold".
    """
    said = f"{marks}: {table.mark}." if table.mark and table.marked else ""
    return " ".join(part for part in (table.caption, said) if part)
