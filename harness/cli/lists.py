"""The verbs that list: `ls` the runs of a folder, `list` what is declared, `doctor` what would be wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.results import one_of, warn
from harness.core.errors import UsageError, nearest
from harness.core.records import Cell, Column, Table
from harness.report.render import FORMATS
from harness.report.terminal import print_tables, say

FormatOption = Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv or json.")]
OWN = "ccmc-harness"


def ls(
    folder: Annotated[Path, typer.Argument(help="The folder with the runs, two levels deep.")] = Path("results"),
    format_: FormatOption = "rich",
) -> None:
    """List the runs in a folder."""
    one_of("--format", format_, FORMATS)
    if not folder.is_dir():
        if folder == Path("results"):
            say("no runs yet; start one with: ccmc run quickstart")
            return
        raise UsageError(f"ls {str(folder)!r}: no such folder")
    from harness.runs.directory import find_runs

    rows = [_run_row(path) for path in find_runs(folder)]
    if not rows:
        say(f"no runs in {folder}; start one with: ccmc run quickstart")
        return
    columns = [
        Column("run", left=True),
        Column("state", left=True),
        Column("units", priority=2),
        Column("created", left=True, priority=3),
        Column("models", left=True, priority=1),
        Column("experiments", left=True, priority=1),
    ]
    print_tables([Table("runs", "", columns, rows)], format_)


def _run_row(path: Path) -> list[Cell]:
    from harness.runs.directory import RunDirectory
    from harness.runs.run import Run

    try:
        manifest = RunDirectory(path).read_manifest()
    except UsageError as error:
        return [str(path), f"unreadable: {error}", None, None, None, None]
    assert manifest is not None
    done, planned = Run(path, manifest).finished_units()
    kinds = ", ".join(experiment["kind"] for experiment in manifest["config"]["experiments"])
    models = ", ".join(model["name"] for model in manifest["models"])
    return [str(path), manifest["state"], f"{done}/{planned}", manifest["created"], models or None, kinds]


def _surrogates() -> Table:
    """Surrogates, those of heads first, each in the order of the ladder."""
    from harness.core import registry

    columns = [
        Column("name", left=True),
        Column("of", left=True),
        Column("sees", left=True, priority=2),
        Column("parameters", left=True, priority=3),
        Column("rollout", left=True, priority=4),
        Column("about", left=True, priority=5),
    ]
    found = [one for of in ("heads", "next-token") for one in registry.surrogates(of).values()]
    rows: list[list[Cell]] = [
        [one.name, one.of, ", ".join(one.sees), one.parameters, _yes(one.rollout), one.about or None] for one in found
    ]
    return _declared("surrogates", columns, rows, found)


def _measures() -> Table:
    from harness.core import registry

    columns = [
        Column("name", left=True),
        Column("unit", left=True, priority=1),
        Column("better", left=True, priority=1),
        Column("pooled", left=True, priority=3),
        Column("about", left=True, priority=2),
    ]
    found = list(registry.measures().values())
    rows: list[list[Cell]] = [[one.name, one.unit, one.better, one.pooled, one.about or None] for one in found]
    return _declared("measures", columns, rows, found)


def _experiments() -> Table:
    from harness.core import registry

    columns = [
        Column("name", left=True),
        Column("question", left=True),
        Column("cost", left=True, priority=2),
        Column("about", left=True, priority=3),
    ]
    found = list(registry.experiments().values())
    rows: list[list[Cell]] = [[one.name, one.question, one.cost or None, one.about or None] for one in found]
    return _declared("experiments", columns, rows, found)


def _models() -> Table:
    from harness.core import registry

    columns = [
        Column("name", left=True),
        Column("form", left=True, priority=1),
        Column("licence", left=True),
        Column("cost", left=True, priority=3),
        Column("about", left=True, priority=2),
    ]
    found = list(registry.models().values())
    rows: list[list[Cell]] = [
        [one.name, one.form or None, one.license or None, one.cost or None, one.about or None] for one in found
    ]
    return _declared("models", columns, rows, found)


KINDS: dict[str, Callable[[], Table]] = {
    "surrogates": _surrogates,
    "measures": _measures,
    "experiments": _experiments,
    "models": _models,
}


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _declared(name: str, columns: list[Column], rows: list[list[Cell]], found: Sequence[Any]) -> Table:
    """A table of declarations, with the packages of those that are not the project's own; no column is empty."""
    packages = [one.package if one.package != OWN else None for one in found]
    if any(packages):
        columns = [*columns, Column("package", left=True, priority=1)]
        rows = [[*row, package] for row, package in zip(rows, packages, strict=True)]
    said = [place for place in range(len(columns)) if any(row[place] not in (None, "") for row in rows)]
    columns, rows = [columns[place] for place in said], [[row[place] or None for place in said] for row in rows]
    return Table(name, "", columns, rows)


def list_(
    kind: Annotated[
        str | None,
        typer.Argument(help="surrogates, measures, experiments or models.", autocompletion=lambda: list(KINDS)),
    ] = None,
    format_: FormatOption = "rich",
) -> None:
    """List what is declared, by the project and by plugins: surrogates, measures, experiments or models."""
    one_of("--format", format_, FORMATS)
    if kind is not None and kind not in KINDS:
        raise UsageError(f"list {kind!r}{nearest(kind, KINDS)}")
    from harness.core import registry

    if kind is None:
        columns = [Column("kind", left=True), Column("declared")]
        counts: list[list[Cell]] = [[name, len(make().rows)] for name, make in KINDS.items()]
        print_tables([Table("kinds", "", columns, counts)], format_)
    else:
        print_tables([KINDS[kind]()], format_)
    for problem in registry.problems():
        warn(problem)


def doctor(format_: FormatOption = "rich") -> None:
    """Check versions, device, cache, models, plugins and disk; exit code 1 where runs would fail."""
    one_of("--format", format_, FORMATS)
    from harness.cli.doctor import examine

    if not examine(format_):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("ls", epilog="Example: ccmc ls results")(ls)
    app.command("list", epilog="Examples: ccmc list | ccmc list surrogates | ccmc list measures --format json")(list_)
    app.command("doctor", epilog="Example: ccmc doctor")(doctor)
