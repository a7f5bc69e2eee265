"""A table in lines of a given width: for terminals and pipes.

Columns are left out by their priority until the table fits, and a note names them. Words wrap; numbers and intervals
are never cut. Where even the columns that are always shown do not fit, each row becomes a block of lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from harness.core.records import Table
from harness.report.render.cells import DASH, caption, cell_text, is_number, visible

GAP = 2
WORDS = 16  # a column of words is narrowed to this before another column is left out
DEEP, MOST = 4, 40  # or to a width in which its cells have about 4 lines, at most 40
LONGEST = 24  # longer words, such as paths, are broken
NARROW = 8  # a column of words is narrowed to this before rows become blocks
PROSE = 110  # captions are not wider, however wide the terminal is
_ENDS = "/-_.,:=|"
_PIECE = re.compile(r"\S*\d\S*(?: \S)? \[\S+, \S+\]\S*|\S+")  # an interval with its value is one piece


class Span(NamedTuple):
    """A piece of a line."""

    text: str
    style: str = ""
    """"bold", "dim" or nothing."""


Line = list[Span]


def _break(word: str, width: int) -> tuple[str, str]:
    """A word in two, the first no wider than `width` but at least one sign; behind a sign such as `/` if it can be."""
    end, used = 0, 0
    for end, sign in enumerate(word):  # noqa: B007 - the place is used below
        used = cell_len(word[: end + 1])
        if used > width:
            break
    else:
        return word, ""
    end = max(end, 1)
    nice = max((word.rfind(sign, 0, end) + 1 for sign in _ENDS), default=0)
    end = nice if nice > end // 2 else end
    return word[:end], word[end:]


def wrap(text: str, width: int) -> list[str]:
    """Lines no wider than `width`, broken between words, never inside a figure with its interval where a line has room
    for it; words that are wider than a line are broken themselves.

    Args:
        text: its line breaks stay.
        width: in columns of a terminal, at least 2.
    """
    lines = []
    for paragraph in text.split("\n"):
        if cell_len(paragraph) <= width:
            lines.append(paragraph)
            continue
        current = ""
        for word in _pieces(paragraph, width):
            joined = f"{current} {word}" if current else word
            if cell_len(joined) <= width:
                current = joined
                continue
            if current:
                lines.append(current)
            current, rest = _break(word, width)
            while rest:
                lines.append(current)
                current, rest = _break(rest, width)
        lines.append(current)
    return lines


def _pieces(text: str, width: int) -> list[str]:
    """The words of a text; an interval with its value, such as "0.5 [0.4, 0.6]", is one where it fits a line."""
    found: list[str] = []
    for match in _PIECE.finditer(text):
        piece = match.group()
        found += [piece] if cell_len(piece) <= width else piece.split()
    return found


def indented(text: str, width: int, first: str, rest: str) -> list[str]:
    """Wrapped lines behind a mark such as "- ", the later ones behind blanks."""
    lines = wrap(text, max(width - max(cell_len(first), cell_len(rest)), 2))
    return [(first if index == 0 else rest) + line for index, line in enumerate(lines)]


def _longest_word(text: str) -> int:
    return max((cell_len(word) for word in text.split()), default=0)


class _Column(NamedTuple):
    """A column as text, with the widths that it can have."""

    place: int
    header: str
    cells: list[str]
    numeric: list[bool]
    marked: list[bool]
    left: bool
    priority: int
    full: int
    soft: int
    hard: int


def _column(table: Table, index: int, star: bool) -> _Column:
    column = table.columns[index]
    marked = [(row, index) in table.marked for row in range(len(table.rows))]
    stars = {True: " *", False: "  "} if star and any(marked) else {True: "", False: ""}  # figures stay aligned
    cells = [cell_text(row[index], column) + stars[mark] for row, mark in zip(table.rows, marked, strict=True)]
    numeric = [is_number(row[index]) for row in table.rows]
    header = visible(column.header)
    figures = max((cell_len(text) for text, figure in zip(cells, numeric, strict=True) if figure), default=0)
    words = [text for text, figure in zip(cells, numeric, strict=True) if not figure]
    lengths = [cell_len(line) for text in words for line in text.split("\n")]
    natural = max(lengths, default=0)
    needed = min(max((_longest_word(text) for text in words), default=0), LONGEST)
    full = max(figures, natural, cell_len(header), 1)
    comfortable = max(WORDS, needed, min(natural // DEEP, MOST))
    soft = max(figures, min(natural, comfortable), min(_longest_word(header), LONGEST), 1)
    hard = max(figures, min(natural, NARROW), min(_longest_word(header), NARROW), 2)
    return _Column(index, header, cells, numeric, marked, column.left, column.priority, full, soft, hard)


def _grown(starts: Sequence[int], limits: Sequence[int], room: int) -> list[int]:
    """Widths from `starts` towards `limits`, one column of the terminal each in turn, until the room is used up."""
    widths = list(starts)
    while room > 0 and any(w < limit for w, limit in zip(widths, limits, strict=True)):
        for place, limit in enumerate(limits):
            if room > 0 and widths[place] < limit:
                widths[place] += 1
                room -= 1
    return widths


def _fit(columns: list[_Column], width: int) -> tuple[list[_Column], list[int] | None]:
    """The columns that are shown and how wide each is; no widths where they fit only as blocks."""
    shown = list(columns)
    while True:
        room = width - GAP * (len(shown) - 1)
        soft = [min(column.soft, column.full) for column in shown]
        if sum(soft) <= room:
            return shown, _grown(soft, [column.full for column in shown], room - sum(soft))
        last = max(range(len(shown)), key=lambda place: (shown[place].priority, place))
        if shown[last].priority == 0:
            break
        del shown[last]
    hard = [column.hard for column in shown]
    if sum(hard) <= room:
        return shown, _grown(hard, [max(c.full, c.hard) for c in shown], room - sum(hard))
    return shown, None


def _padded(text: str, width: int, left: bool) -> str:
    blanks = " " * max(width - cell_len(text), 0)
    return text + blanks if left else blanks + text


def _line(pieces: list[tuple[str, int, bool, str]]) -> Line:
    """Pieces (text, width, to the left, style) as a line without blanks at its end."""
    line: Line = []
    for place, (text, width, left, style) in enumerate(pieces):
        padded = _padded(text, width, left)
        if place:
            line.append(Span(" " * GAP))
        line.append(Span(padded.rstrip() if place == len(pieces) - 1 else padded, style))
    while line and not line[-1].text.strip():
        line.pop()
    if line:
        line[-1] = Span(line[-1].text.rstrip(), line[-1].style)
    return line


def _grid(columns: list[_Column], widths: list[int]) -> list[Line]:
    lines: list[Line] = []
    heads = [wrap(column.header, width) for column, width in zip(columns, widths, strict=True)]
    depth = max(len(head) for head in heads)
    for level in range(depth):
        pieces = []
        for column, width, head in zip(columns, widths, heads, strict=True):
            above = depth - len(head)  # headers end at the rule
            text = head[level - above] if level >= above else ""
            pieces.append((text, width, column.left, "bold"))
        lines.append(_line(pieces))
    lines.append([Span("─" * (sum(widths) + GAP * (len(widths) - 1)), "dim")])
    for row in range(len(columns[0].cells)):
        cells = [
            [column.cells[row]] if column.numeric[row] else wrap(column.cells[row], width)
            for column, width in zip(columns, widths, strict=True)
        ]
        for level in range(max(len(cell) for cell in cells)):
            pieces = [
                (
                    cell[level] if level < len(cell) else "",
                    width,
                    column.left,
                    "bold" if column.marked[row] else "",
                )
                for column, width, cell in zip(columns, widths, cells, strict=True)
            ]
            lines.append(_line(pieces))
    return lines


def _blocks(columns: list[_Column], width: int) -> list[Line]:
    """Each row as a block: a line per column, its header before the cell."""
    lines: list[Line] = []
    for row in range(len(columns[0].cells)):
        for place, column in enumerate(columns):
            text, style = column.cells[row].rstrip(), "bold" if column.marked[row] else ""
            before = "  " if place else ""
            label = f"{column.header}: "
            if cell_len(before + label + text) <= width and "\n" not in text:
                lines.append([Span(before), Span(label, "dim"), Span(text, style)])
            elif column.numeric[row]:
                lines += [[Span(line, "dim")] for line in indented(label.rstrip(), width, before, before)]
                lines.append([Span(" " * max(min(4, width - cell_len(text)), 0)), Span(text, style)])
            else:
                lines += [[Span(line, style)] for line in indented(label + text, width, before, "    ")]
    return lines


def fits(table: Table, width: int) -> bool:
    """Whether all columns of a table can be shown side by side."""
    columns = [_column(table, index, star=True) for index in range(len(table.columns))]
    return sum(min(one.soft, one.full) for one in columns) + GAP * (len(columns) - 1) <= width


def layout(table: Table, width: int, star: bool = True, more: str = "--format csv") -> list[Line]:
    """A table as lines, none of them wider than `width`.

    Args:
        table: any table.
        width: in columns of a terminal; at least 40, or a single interval may be wider.
        star: marked cells get a star, where nothing can be bold.
        more: the option that shows the columns which are left out.

    Returns:
        Lines of styled pieces: title, table, a note about columns that are left out, caption.
    """
    lines: list[Line] = [[Span(line, "bold")] for line in wrap(visible(table.title), width) if table.title]
    columns = [_column(table, index, star) for index in range(len(table.columns))]
    shown, widths = _fit(columns, width)
    lines += _blocks(shown, width) if widths is None else _grid(shown, widths)
    if not table.rows:
        lines.append([Span(DASH)])
    kept = {column.place for column in shown}
    gone = [column.header for column in columns if column.place not in kept]
    prose = min(width, PROSE)
    if gone:
        note = f"Too wide for {width} columns, not shown: {', '.join(gone)} (a wider terminal or {more} shows them)."
        lines += [[Span(line, "dim")] for line in wrap(note, prose)]
    below = caption(table, "*" if star else "Bold")
    if below:
        lines += [[Span(line, "dim")] for line in wrap(visible(below), prose)]
    return lines


def plain(line: Line) -> str:
    """A line without styles."""
    return "".join(span.text for span in line)
