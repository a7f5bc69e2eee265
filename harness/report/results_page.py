"""results/README.md: what every committed reference run says, answers first, then its tables.

The page knows no experiment: each experiment makes answers, tables and pictures of its own rows.
Beside each run lies its `notes.md`, prose that the page includes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.config.load import config_names
from harness.core.records import Table
from harness.report.overview import answer_text, facts, in_order
from harness.report.render.markdown import escape, to_markdown
from harness.runs import reading
from harness.runs.directory import find_runs
from harness.runs.run import Run, load_run

MOST_ROWS, FIRST_ROWS = 40, 12  # a table with more rows than the first is cut to the second
NOTES = "notes.md"
INFERENCE = "inference.md"  # how often intervals are wrong, by simulation: written by tests/benchmarks/inference.py
SPEED = "speed.md"  # written by tests/benchmarks with --speed-page


def notes_of(folder: Path, name: str = NOTES) -> str:
    """The prose beside a run or beside all of them; empty where there is none."""
    file = folder / name
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def shortened(table: Table, command: str) -> Table:
    """A table with its first rows only, where it has very many.

    Args:
        table: a table of the run.
        command: prints all rows.
    """
    if len(table.rows) <= MOST_ROWS:
        return table
    said = f"The first {FIRST_ROWS} of {len(table.rows):,} rows; all of them: `{command}`."
    marked = frozenset(place for place in table.marked if place[0] < FIRST_ROWS)
    return replace(table, rows=table.rows[:FIRST_ROWS], caption=f"{said} {table.caption}".strip(), marked=marked)


def _tables(tables: Sequence[Table], shown: str) -> Iterator[str]:
    for table in tables:
        command = f"ccmc show {shown} {table.name}"
        yield to_markdown(shortened(table, command)).replace(f"\\`{command}\\`", f"`{command}`").strip()


def _pictures(run: Run, root: Path) -> Iterator[str]:
    for path in sorted((run.path / "plots").glob("*.svg")):
        yield f"![{path.stem}]({path.relative_to(root).as_posix()})"


def _origin(run: Run, name: str) -> str:
    """How the run was made, and with which weights."""
    manifest: dict[str, Any] = run.manifest
    made = f"`ccmc run {name}`" if name in config_names() else f"a config named {manifest['name']!r}"
    models = [f"{one['name']} {one['revision'] or ''}".strip() for one in manifest["models"]]
    weights = f", weights: {', '.join(models)}" if models else ""
    return f"Made by {made}{weights} ({facts(run.manifest)})."


def run_section(run: Run, name: str, root: Path) -> str:
    """Answers, tables and pictures of one run, as Markdown.

    Args:
        run: an opened run.
        name: of its section, its path below the folder of reference runs.
        root: the folder of the page, from which links count.
    """
    readings = reading.read(run.split)
    shown = run.path.relative_to(root.parent).as_posix()
    heads = [one.headline for one in readings if one.headline is not None]
    others = [table for one in readings for table in one.tables if table not in heads]
    answers = [f"- {escape(answer_text(answer))}" for answer in in_order(readings)]
    parts = [
        f"## {name}",
        _origin(run, name) + f" Printed again by `ccmc show {shown} --all`.",
        "\n".join(answers),
        *_tables(heads, shown),
        notes_of(run.path),
        *_pictures(run, root),
    ]
    if others:
        more = "\n\n".join(_tables(others, shown))
        count = f"{len(others)} more table{'s' if len(others) > 1 else ''}"
        parts.append(f"<details><summary>{count} of {name}</summary>\n\n{more}\n\n</details>")
    problems = [f"- {escape(problem)}" for one in readings for problem in one.problems]
    return "\n\n".join(part for part in (*parts, "\n".join(problems)) if part)


def reference_runs(root: Path) -> dict[str, Run]:
    """Name -> run of every reference run; those that lie deeper in the folder come later.

    Args:
        root: the folder `results` of a checkout.
    """
    reference = root / "reference"
    found = {path.relative_to(reference).as_posix(): path for path in find_runs(reference)}
    return {name: load_run(found[name]) for name in sorted(found, key=lambda name: (name.count("/"), name))}


def results_page(root: Path) -> str:
    """The text of results/README.md.

    Args:
        root: the folder `results` of a checkout.
    """
    runs = reference_runs(root)
    contents = "\n".join(f"- [{name}](#{name.replace('/', '')}): {facts(run.manifest)}" for name, run in runs.items())
    parts = [
        "<!-- Written by `ccmc docs` from the reference runs and the notes.md beside each: edit those. -->",
        "# Reference runs",
        notes_of(root / "reference"),
        contents,
        *(run_section(run, name, root) for name, run in runs.items()),
        notes_of(root, INFERENCE),
        notes_of(root, SPEED),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
