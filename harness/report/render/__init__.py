"""Typed tables as text, one module per format.

`layout` fits a table to a width for terminals and pipes; `markdown`, `latex`, `html` and `data` (CSV and JSON) give
everything uncut. All of them take `harness.core.records.Table`; how a cell is written is in `cells`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.core.records import Table

FORMATS = ("rich", "markdown", "latex", "csv", "json")
"""What `--format` takes; "rich" is the terminal."""


def render(tables: Sequence[Table], format_: str) -> str:
    """Tables as text that ends with a line break.

    Args:
        tables: in the order in which they are written.
        format_: markdown, latex, csv, json or html.
    """
    from harness.report.render import data, html, latex, markdown

    if format_ == "csv":
        return data.to_csv(tables)
    if format_ == "json":
        return data.to_json([data.table_record(table) for table in tables])
    write = {"markdown": markdown.to_markdown, "latex": latex.to_latex, "html": html.to_html}[format_]
    return "\n".join(write(table) for table in tables)
