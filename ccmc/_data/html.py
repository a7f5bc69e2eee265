"""Small tables for notebooks; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """A table with a title and a line below it.

    Args:
        title: above it.
        head: names of the columns; none for a table of facts.
        rows: cells as text.
        note: below it.
    """
    cells = [f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>"] if head else []
    cells += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<div><b>{escape(title)}</b><table>{''.join(cells)}</table>{below}</div>"
