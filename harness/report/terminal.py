"""What the command line shows: tables on a terminal, or plain text where the output goes to a file or a pipe."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.core.records import Table
    from harness.report.render.layout import Line

PIPE = 100  # columns of a file or a pipe
NARROWEST = 40  # an interval needs 32
HELP = 52  # a help page is not narrower by itself


def console(stderr: bool = False) -> Any:
    """The terminal of rich: for styles and progress; a file or a pipe folds nothing."""
    from rich.console import Console

    screen = Console(stderr=stderr)
    return screen if screen.is_terminal else Console(stderr=stderr, width=240)


def say(text: str = "", nl: bool = True, err: bool = False) -> None:
    """Write a text as it is, but for signs that a terminal would act on.

    Args:
        text: line breaks stay.
        nl: a line break at its end.
        err: to standard error.
    """
    from harness.report.render.cells import visible

    stream = sys.stderr if err else sys.stdout
    stream.write(visible(text) + ("\n" if nl else ""))
    stream.flush()


def say_format(text: str, format_: str) -> None:
    """Write what a format made; JSON with escapes where the output lacks signs, so that no program reads another text.

    Args:
        text: as a whole, with its last line break.
        format_: markdown, latex, csv, json or html.
    """
    from harness.report.render.data import ascii_json
    from harness.report.signs import is_utf

    say(ascii_json(text) if format_ == "json" and not is_utf(sys.stdout.encoding) else text, nl=False)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say what is being done and for how long, on a terminal only, and wipe it away at the end."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as progress:
        progress.add_task(what, total=None)
        yield


def width() -> int:
    """Columns of the terminal; 100 in a file or a pipe, where COLUMNS does not say otherwise."""
    return max(shutil.get_terminal_size((PIPE, 24)).columns if sys.stdout.isatty() else _columns(), NARROWEST)


def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdigit() and int(given) else PIPE


def print_lines(lines: Iterable[Line]) -> None:
    """Write lines that fit already: with styles on a terminal, as plain text into a file or a pipe."""
    from harness.report.render.layout import plain

    if not sys.stdout.isatty():
        for line in lines:
            say(plain(line))
        return
    from rich.text import Text

    screen = console()
    for line in lines:
        screen.print(Text.assemble(*line), soft_wrap=True)


def print_prose(text: str, first: str = "", rest: str = "", style: str = "") -> None:
    """Write a text, wrapped to the width, behind a mark such as "- "."""
    from harness.report.render.cells import visible
    from harness.report.render.layout import Span, indented
    from harness.report.signs import readable

    shown = readable(visible(text), sys.stdout.encoding)
    print_lines([Span(line, style)] for line in indented(shown, width(), first, rest))


def print_line(text: str) -> None:
    """Write one line: wrapped between words on a terminal, in one piece into a file or a pipe."""
    if sys.stdout.isatty():
        print_prose(text, rest="  ")
    else:
        say(text)


def help_width() -> int | None:
    """Columns of a help page on a terminal that is narrower than such pages are by themselves; None on others."""
    columns = shutil.get_terminal_size((PIPE, 24)).columns if sys.stdout.isatty() else PIPE
    return max(columns - 2, 20) if columns < HELP else None


def print_tables(tables: Sequence[Table], format_: str = "rich", more: str = "--format csv") -> None:
    """Write tables: fitted to the width, or uncut in another format.

    Args:
        tables: in their order.
        format_: rich, markdown, latex, csv, json or html.
        more: the option that shows the columns which are left out.
    """
    if format_ != "rich":
        from harness.report.render import render

        say_format(render(tables, format_), format_)
        return
    from harness.report.render.layout import layout

    star = not sys.stdout.isatty()
    for index, table in enumerate(tables):
        if index:
            say()
        print_lines(layout(_spelled(table), width(), star, more))


def _spelled(table: Table) -> Table:
    """A table whose texts the output can write, before their widths are measured."""
    from harness.report.render.cells import visible
    from harness.report.signs import is_utf, readable

    encoding = sys.stdout.encoding
    if is_utf(encoding):
        return table

    def spelled(text: str) -> str:
        return readable(visible(text), encoding)

    return replace(
        table,
        title=spelled(table.title),
        caption=spelled(table.caption),
        mark=spelled(table.mark),
        columns=[replace(one, name=spelled(one.name), unit=spelled(one.unit)) for one in table.columns],
        rows=[[spelled(cell) if isinstance(cell, str) else cell for cell in row] for row in table.rows],
    )


@contextmanager
def progress_line(title: str) -> Iterator[Callable[[float, str], None]]:
    """One bar on the terminal, gone when the block ends; yields a function of the share done and the current step."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share, what: bar.update(task, completed=share, description=f"{title}: {what}")
