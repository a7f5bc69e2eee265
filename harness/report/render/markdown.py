"""Tables as GitHub Markdown."""

from __future__ import annotations

import re

from harness.core.records import Table
from harness.report.render.cells import body, caption, visible


def escape(text: str) -> str:
    """Text in which no sign means anything to Markdown; a line break becomes `<br>`."""
    for sign in "\\|*`<>":
        text = text.replace(sign, "\\" + sign)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside a word it means nothing
    return text.replace("\n", "<br>")


def to_markdown(table: Table) -> str:
    """Title, table and caption; marked cells in **bold**."""
    header = [escape(visible(column.header)) for column in table.columns]
    rule = "|".join(" --- " if column.left else " ---: " for column in table.columns)
    lines = [f"**{escape(visible(table.title))}**", "", f"| {' | '.join(header)} |", f"|{rule}|"]
    lines += [f"| {' | '.join(row)} |" for row in body(table, escape, lambda text: f"**{text}**")]
    below = caption(table, "Bold")
    return "\n".join([*lines, *(["", escape(visible(below))] if below else [])]) + "\n"
