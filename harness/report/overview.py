"""What `ccmc run` and `ccmc show` print: a header, the answers in words, one small table per experiment, what else
there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.core.errors import UsageError, nearest
from harness.core.records import Answer, Table
from harness.report.render import data, latex, markdown, render
from harness.report.terminal import print_prose, print_tables, say
from harness.runs.versions import kept_lines

if TYPE_CHECKING:
    from harness.runs.reading import Reading

MOST_ROWS = 12  # of a headline


def duration(seconds: float) -> str:
    """A time as people say it: 45 s, 3 min 12 s, 1 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def header(manifest: dict[str, Any]) -> str:
    """One line about a run: its name, then its facts."""
    return f"{manifest['name']}: {facts(manifest)}"


def facts(manifest: dict[str, Any]) -> str:
    """Models, prompts and the time that the units of a run took."""
    parts = [", ".join(model["name"] for model in manifest["models"])]
    prompts = manifest["prompts"]
    if folds := manifest["config"].get("folds"):
        parts.append(f"{prompts['held_out']} prompts in {folds} folds, each judged once")
    elif prompts["train"] or prompts["held_out"]:
        parts.append(f"{prompts['train']} prompts to fit on, {prompts['held_out']} held out")
    seconds = manifest.get("timings", {}).get("sum_of_units_seconds")
    if seconds is not None:
        parts.append(f"computed in {duration(seconds)}")
    return "; ".join(part for part in parts if part) or "no model"


def in_order(readings: Sequence[Reading]) -> list[Answer]:
    """All answers, those that the run could not give last."""
    found = [answer for one in readings for answer in one.answers]
    return sorted(found, key=lambda answer: not answer.answered)


def answer_text(answer: Answer) -> str:
    """An answer as one paragraph, marked where the run could not answer."""
    return answer.text if answer.answered else f"Not answered: {answer.question} {answer.text}"


def small(table: Table) -> Table:
    """A headline with its first rows only, where it has more than a screen should hold."""
    if len(table.rows) <= MOST_ROWS:
        return table
    caption = f"The first {MOST_ROWS} of {len(table.rows)} rows. {table.caption}".rstrip()
    return replace(table, rows=table.rows[:MOST_ROWS], caption=caption)


def print_overview(run: Any, readings: Sequence[Reading], everything: bool = False) -> None:
    """Print the header, answers and tables of a run.

    Args:
        run: an opened run.
        readings: of its rows.
        everything: all tables instead of the headlines.
    """
    print_prose(header(run.manifest), rest="  ", style="bold")
    if said := in_order(readings):
        say()
        for answer in said:
            print_prose(answer_text(answer), "- ", "  ")
    if notes := [*run.manifest.get("notes", []), *kept_lines(run.manifest)]:
        say()
        for note in notes:
            print_prose(f"note: {note}", rest="  ")
    tables = [table for one in readings for table in one.tables]
    shown = tables if everything else [one.headline for one in readings if one.headline is not None]
    if shown:
        say()
        print_tables(shown if everything else [small(table) for table in shown], more=f"ccmc show {run.path} NAME")
    say()
    others = [table.name for table in tables if table not in shown]
    if others:
        print_prose(f"more: ccmc show {run.path} NAME, or --all; tables: {', '.join(others)}", rest="  ")
    done, planned = run.finished_units()
    print_prose(f"run directory: {run.path} ({run.state}, {done} of {planned} units)", rest="  ")
    if (run.path / "plots").is_dir():
        print_prose(f"figures: {run.path / 'plots'}", rest="  ")
    if run.state != "complete":
        from harness.runs.resume import missing_lines, resume_command

        for line in missing_lines(run):
            print_prose(line.strip(), "  " if line.startswith(" ") else "", "    ")
        say(f"  {resume_command(run)}")  # in one piece, to be copied


def chosen(readings: Sequence[Reading], names: Sequence[str]) -> list[Table]:
    """The tables of these names; the name of an experiment selects all of its tables.

    Raises:
        UsageError: no such table; names the nearest.
    """
    by_name: dict[str, list[Table]] = {one.kind: list(one.tables) for one in readings}
    for one in readings:
        for table in one.tables:
            by_name.setdefault(table.name, []).append(table)
    for name in names:
        if name not in by_name:
            raise UsageError(f"table {name!r}: the run has no such table{nearest(name, by_name)}")
    return [table for name in names for table in by_name[name]]


def to_text(run: Any, answers: Sequence[Answer], tables: Sequence[Table], format_: str) -> str:
    """Answers and tables of a run, uncut.

    Args:
        run: an opened run.
        answers, tables: of the run.
        format_: markdown, latex, csv or json.
    """
    if format_ == "csv":
        return render([data.answers_table(answers), *tables] if answers else tables, "csv")
    if format_ == "json":
        record = {
            "run": {
                "name": run.name,
                "path": str(run.path),
                "state": run.state,
                "models": [model["name"] for model in run.manifest["models"]],
                "prompts": {part: run.manifest["prompts"][part] for part in ("train", "held_out")},
                "config_hash": run.manifest["config_hash"],
                "notes": [*run.manifest.get("notes", []), *kept_lines(run.manifest)],
            },
            "answers": [data.answer_record(answer) for answer in answers],
            "tables": [data.table_record(table) for table in tables],
        }
        return data.to_json(record)
    parts = [render(tables, format_)] if tables else []
    if answers:
        texts = [answer_text(answer) for answer in answers]
        if format_ == "markdown":
            lines = [f"- {markdown.escape(text)}" for text in texts]
        else:
            items = [rf"\item {latex.escape(text)}" for text in texts]
            lines = [r"\begin{itemize}", *items, r"\end{itemize}"]
        parts.insert(0, "\n".join(lines) + "\n")
    return "\n".join(parts)
