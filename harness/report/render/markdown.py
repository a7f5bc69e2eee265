"""Tables as GitHub Markdown."""

from __future__ import annotations

import re

from harness.core.records import Table
from harness.report.render.cells import body, caption, visible


def _not_a_block(found: re.Match[str]) -> str:
    """The start of a text that would be a headline or a list, escaped: `\\# x`, `\\- x`, `1\\. x`."""
    blanks, mark = found.groups()
    return f"{blanks}{mark}\\" if mark.isdigit() else f"{blanks}\\{mark}"


def escape(text: str) -> str:
    """Text in which no sign means anything to Markdown; a line break becomes `<br>`."""
    for sign in "\\|*`<>":
        text = text.replace(sign, "\\" + sign)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside a word it means nothing
    text = re.sub(r"\](?=[(\[:])|~(?=~)|&(?=#?\w+;)", r"\\\g<0>", text)  # links, lines through a text, entities
    text = re.sub(r"^(\s*)(#+|[-+]|\d+(?=[.)]))(?=[.)]? )", _not_a_block, text)
    return text.replace("\n", "<br>")


def to_markdown(table: Table) -> str:
    """Title, table and caption; marked cells in **bold**."""
    header = [escape(visible(column.header)) for column in table.columns]
    rule = "|".join(" --- " if column.left else " ---: " for column in table.columns)
    lines = [f"**{escape(visible(table.title))}**", "", f"| {' | '.join(header)} |", f"|{rule}|"]
    lines += [f"| {' | '.join(row)} |" for row in body(table, escape, lambda text: f"**{text}**")]
    below = caption(table, "Bold")
    return "\n".join([*lines, *(["", escape(visible(below))] if below else [])]) + "\n"
