"""The verbs on finished runs: verify, table, compare, leaderboard, gate, report. They parse, call and print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

RunArgument = Annotated[str, typer.Argument(help="A run directory, or its name under results/.")]


def verify(run: RunArgument) -> None:
    """Check that a run is complete, in its schema, and as it was written; exit code 1 where it is not."""
    from harness.runner import load_run
    from harness.verify import verify as check

    opened = load_run(run)
    found = check(opened.path)
    for problem in found.problems:
        typer.echo(problem)
    checked = f"{found.files} files, {found.units} units, {found.rows:,} rows"
    if found.problems:
        count = len(found.problems)
        typer.echo(f"{opened.path}: {count} problem{'s' if count > 1 else ''} ({checked} checked)")
        raise typer.Exit(1)
    typer.echo(f"{opened.path}: verified: {checked}")


_VERBS: dict[str, tuple[Any, str]] = {
    "verify": (verify, "Example: ccmc verify results/reference/quickstart"),
}


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for name, (verb, examples) in _VERBS.items():
        app.command(name, epilog=examples)(verb)
