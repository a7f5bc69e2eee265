"""What the command line shows: tables on a terminal, or plain text where the output goes to a file or a pipe."""

from __future__ import annotations

from typing import Any

import typer


def console(stderr: bool = False) -> Any:
    """The terminal, or a wide sheet where there is none."""
    from rich.console import Console

    screen = Console(stderr=stderr)
    return screen if screen.is_terminal else Console(stderr=stderr, width=240)  # a file or a pipe folds nothing


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
