"""`ccmc report`: one self-contained HTML file about one or many runs.

Every text goes through the template's escaping, data through JSON without `<`; a content security policy allows the
one script of the file by its hash, and no request to anywhere.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from harness.analysis.pivot import pivots, run_names
from harness.core import registry
from harness.core.errors import UsageError, one_line
from harness.core.hashing import file_hash
from harness.core.records import Answer, Figure, Table
from harness.report import kept, kept_readings
from harness.report.attention_page import ABOUT, page_data
from harness.report.document import render, safe_json, write_page_file
from harness.report.overview import answer_text, in_order
from harness.report.page_data import head_table, viewer
from harness.report.pictures import inline_svg
from harness.runs.reading import Reading, figures
from harness.runs.run import Run

TRAJECTORIES = "trajectories.parquet"


@dataclass
class Picture:
    """An SVG with its title, and a sentence that says what it shows."""

    title: str
    svg: str
    about: str
    wide: bool = True


@dataclass
class Section:
    """One run in a report."""

    name: str
    anchor: str
    manifest: dict[str, Any]
    state: str
    done: int
    answers: list[Answer]
    tables: list[Table]
    pictures: list[Picture]
    heads: str | None
    attention: str | None
    texts: str | None
    left_out: int
    config: str
    failures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _pictures(found: Sequence[Figure], prefix: str, problems: list[str]) -> list[Picture]:
    """The figures of a run, drawn; for one that cannot be drawn a line is added to the problems."""
    made = []
    for figure in found:
        try:
            svg = inline_svg(figure, f"{prefix}-{figure.name}")
        except Exception as error:
            problems.append(f"figure {figure.name} cannot be drawn: {type(error).__name__}: {one_line(error)}")
            continue
        made.append(Picture(figure.title, svg, figure.about, figure.wide))
    return made


def _kept_pictures(run: Run, prefix: str) -> tuple[list[Picture], list[str]]:
    """The figures of a run and a line for each that is lost; those of a complete run are drawn once."""
    written = run.path / TRAJECTORIES
    name = kept.name_of(run, "pictures", prefix, file_hash(written) if written.is_file() else "")
    if name is not None:
        with suppress(*kept.NO_ENTRY):
            return [Picture(**one) for one in kept.look_up(name)], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drawn = figures(run.split, run.trajectories)
    problems = [str(one.message) for one in caught]
    made = _pictures(drawn, prefix, problems)
    if name is not None and not problems:
        kept.store(name, [asdict(one) for one in made])
    return made, problems


def _section(run: Run, readings: Sequence[Reading], name: str, index: int) -> Section:
    pictures, lost = _kept_pictures(run, f"r{index}")
    problems = [problem for one in readings for problem in one.problems] + lost
    texts = viewer(run)
    parts = [part for _, part in run.split] or [run.rows]
    heads, attention = head_table(parts[0] if len(parts) == 1 else pd.concat(parts)), page_data(run)
    done, _ = run.finished_units()
    labels = {unit["key"]: unit["label"] for unit in run.manifest["units"]}
    return Section(
        name=name,
        anchor=f"run-{index}",
        manifest=run.manifest,
        state=run.state,
        done=done,
        answers=in_order(readings),
        tables=[table for one in readings for table in one.tables],
        pictures=pictures,
        heads=None if heads is None else safe_json(heads),
        attention=None if attention is None else safe_json(attention),
        texts=None if texts is None else safe_json(texts),
        left_out=0 if texts is None else texts["left_out"],
        config=json.dumps(run.manifest["config_as_given"], indent=2, ensure_ascii=False),
        failures=[f"{labels.get(f['key'], f['key'])}: {f['error']}" for f in run.manifest["failures"]],
        problems=problems,
    )


def render_report(runs: Sequence[Run]) -> str:
    """The report as HTML.

    Args:
        runs: opened runs, each once.

    Returns:
        One document that needs nothing else.

    Raises:
        UsageError: no run, or one twice.
    """
    if not runs:
        raise UsageError("report: at least one run is needed")
    said = [kept_readings.readings(run) for run in runs]
    named = zip(runs, said, run_names(runs), strict=True)
    sections = [_section(run, readings, name, i) for i, (run, readings, name) in enumerate(named)]
    used = sorted({name for run in runs for _, part in run.split for name in part["metric"].unique()})
    page = render(
        "report.html.j2",
        sections=sections,
        compared=[pivot.wide() for pivot in pivots(runs)] if len(runs) > 1 else [],
        answer_text=answer_text,
        metrics=[found for found in map(registry.measure, used) if found is not None],
        attention_about=ABOUT,
        title=", ".join(section.name for section in sections),
    )
    for run, readings in zip(runs, said, strict=True):
        kept_readings.keep(run, readings)
    return page


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write the report of runs to a file, as a whole or not at all.

    Raises:
        UsageError: as `render_report`, or the file cannot be written.
    """
    write_page_file(path, lambda: render_report(runs))
