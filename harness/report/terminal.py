"""What the command line shows: tables on a terminal, or plain text where the output goes to a file or a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer


def console(stderr: bool = False) -> Any:
    """The terminal, or a wide sheet where there is none."""
    from rich.console import Console

    screen = Console(stderr=stderr)
    return screen if screen.is_terminal else Console(stderr=stderr, width=240)  # a file or a pipe folds nothing


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


def print_tables(tables: list[Any], format_: str = "rich") -> None:
    """Show summary tables on the terminal, or as Markdown."""
    if format_ == "markdown":
        typer.echo("\n".join(table.markdown() for table in tables).rstrip("\n"))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    screen = console()
    for table in tables:
        shown = Table(title=Text(table.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
        for index, name in enumerate(table.header):
            shown.add_column(Text(name), justify="left" if index == 0 else "right", overflow="fold", no_wrap=index == 0)
        for row in table.rows:
            shown.add_row(*(Text(cell) for cell in row))
        screen.print(shown)
        if table.note:
            screen.print(Text(table.note, style="dim"), width=min(screen.width, 160))
        screen.print()


def print_pivots(pivots: list[Any]) -> None:
    """Show pivots on the terminal, the best figures in bold; where nothing can be bold they end with a star."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.analysis.pivot import column_names
    from harness.core.format import interval

    screen = console()
    for pivot in pivots:
        shown = Table(title=Text(pivot.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
        for name in pivot.row_factors:
            shown.add_column(Text(name), no_wrap=True)
        for heading in column_names(pivot):
            shown.add_column(Text(heading), justify="right")
        for row in pivot.rows:
            cells = [Text(name) for name in row]
            for column in pivot.columns:
                cell = pivot.cells.get((row, column))
                best = cell is not None and cell.best
                text = "–" if cell is None else interval(cell.interval)
                mark = " *" if best and not screen.is_terminal else ""
                cells.append(Text(text + mark, style="bold" if best else ""))
            shown.add_row(*cells)
        screen.print(shown)
        note = pivot.note if screen.is_terminal else pivot.note.replace("Bold:", "*:")
        screen.print(Text(note, style="dim"), width=min(screen.width, 160))
        screen.print()


@contextmanager
def progress_line(title: str) -> Iterator[Callable[[float, str], None]]:
    """One bar on the terminal, gone when the block ends; yields what to tell the share done and what is being done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    screen = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share, what: bar.update(task, completed=share, description=f"{title}: {what}")
