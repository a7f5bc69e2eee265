"""Tables of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """A table ready to be shown: plain text in every cell."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""

    def markdown(self) -> str:
        """The table as Markdown, with title and note; lines of a cell become `<br>`."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"

        rule = "|" + "|".join(" --- " if index == 0 else " ---: " for index in range(len(self.header))) + "|"
        lines = [f"**{self.title}**", "", line(self.header), rule, *(line(row) for row in self.rows)]
        return "\n".join([*lines, *(["", self.note] if self.note else [])]) + "\n"
