"""`ccmc report`: one self-contained HTML file about one or many runs.

Every text goes through the template's escaping, data through JSON without `<`; a content security policy allows the
one script of the file by its hash, and no request to anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from harness.analysis.pivot import run_names
from harness.core.errors import UsageError
from harness.core.metrics import find_metric
from harness.experiments._shared.tables import Table, mean_difference, summary_tables
from harness.experiments.heads.figures import head_pictures
from harness.experiments.heads.tables import head_tables
from harness.report.attention_page import ABOUT, page_data
from harness.report.page_data import head_table, viewer
from harness.report.pictures import Estimate, dot_plot, inline_svg
from harness.report.words import answers
from harness.runs.directory import now, write_atomic
from harness.runs.run import Run
from harness.stats.pooling import Observed
from harness.surrogates import LADDER

TEMPLATES = Path(__file__).parent / "templates"
AGREEMENT = ("winner_jaccard", "winner_precision", "winner_recall")
ABOUT_HEADS = {
    "explained": "Share of KL(counts) explained in each head. Orange: all of it; white: none; purple with a dash: "
    "worse than counts.",
    "kinds": "What each head looks at, by its scores; the tables of heads say how kinds are told apart.",
}
REPETITION = ("seq_rep_1", "seq_rep_2", "seq_rep_3", "seq_rep_4", "loop_share", "dominance")


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
    answers: list[str]
    tables: list[Table]
    pictures: list[Picture]
    heads: str | None
    attention: str | None
    texts: str | None
    left_out: int
    config: str
    failures: list[str] = field(default_factory=list)


def safe_json(value: Any) -> str:
    """JSON that may stand inside a `<script>`: no sign in it can end the element or start another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _ladder(names: Sequence[str]) -> list[str]:
    return [name for name in LADDER if name in names] + sorted(set(names) - set(LADDER))


def _pictures(rows: pd.DataFrame, name: str) -> list[Picture]:
    made = []
    for (model, strategy, what), svg in head_pictures(rows, name).items():
        made.append(Picture(f"Heads of {model}, {strategy}: {what}", svg, ABOUT_HEADS[what]))
    seen = Observed(rows)
    made += _agreement_pictures(rows, seen, name)
    return made


def _figures(rows: pd.DataFrame, name: str) -> list[Picture]:
    """The figures that a run of the paper's experiments, or of a count ablation, draws."""
    import matplotlib

    from harness.experiments._shared import plots
    from harness.experiments.generation import figures as generation_plots

    made = []
    names = ["experiment", "model", "strategy", "surrogate", "condition", "metric"]
    rows = rows.assign(**{column: rows[column].str.replace("$", "", regex=False) for column in names})  # no formulas
    with matplotlib.rc_context(plots.STYLE):
        for kind, figure in plots.draw(rows).items():
            about = "Points: what was measured, with 95 % intervals; lines: what theory says."
            made.append(Picture(f"{kind}: measured and predicted", inline_svg(figure, f"{name}-{kind}"), about))
        ablation = rows[rows["experiment"] == "count-ablation"]
        for label, make in generation_plots.draw(ablation, pd.DataFrame()).items():
            about = "Repetition against the strength of each ablation, and against what it costs on prose."
            made.append(Picture(label, inline_svg(make(), f"{name}-{label}"), about))
    return made


def _agreement_pictures(rows: pd.DataFrame, seen: Observed, name: str) -> list[Picture]:
    made = []
    explained: dict[str, list[Estimate]] = {}
    for key, sample in seen.cells(("model", "strategy", "surrogate"), experiment="heads", metric="explained"):
        explained.setdefault(f"{key[0]}, {key[1]}", []).append((str(key[2]), sample.interval()))
    if explained:
        svg = dot_plot(explained, "explained", f"{name}-explained", zero=True)
        made.append(Picture("All heads together: explained", svg, "95 % intervals over held-out prompts.", wide=False))
    part = rows[(rows["experiment"] == "generation") & (rows["split"] == "held_out")]
    for number, ((model, strategy), own) in enumerate(part.groupby(["model", "strategy"], sort=False)):
        where = {"experiment": "generation", "model": model, "strategy": strategy, "split": "held_out"}
        winners: dict[str, list[Estimate]] = {}
        for key, sample in seen.cells(("metric", "surrogate"), **where):
            if key[0] in AGREEMENT:
                winners.setdefault(str(key[0]), []).append((str(key[1]), sample.interval()))
        if winners:
            svg = dot_plot(winners, "overlap with the model's winner set", f"{name}-winners-{number}")
            about = "model-shuffled: continuations of other prompts, the floor. model-reseeded: the ceiling."
            made.append(Picture(f"Winners of {model}, {strategy}", svg, about, wide=False))
        names = _ladder([s for s in own["surrogate"].unique() if not str(s).startswith("model")])
        differences = {
            surrogate: [(measure, mean_difference(own, surrogate, measure)) for measure in REPETITION]
            for surrogate in names
        }
        if differences:
            svg = dot_plot(differences, "surrogate - model", f"{name}-repetition-{number}", zero=True)
            about = "Difference to the model's own continuation, paired by prompt, with 95 % intervals."
            made.append(Picture(f"Repetition against {model}, {strategy}", svg, about, wide=False))
    return made


def _section(run: Run, name: str, index: int) -> Section:
    rows = run.rows
    known = rows[rows["experiment"].isin(["one-layer", "heads", "generation"])]
    texts = viewer(run)
    heads, attention = head_table(rows), page_data(run)
    done, _ = run.finished_units()
    labels = {unit["key"]: unit["label"] for unit in run.manifest["units"]}
    return Section(
        name=name,
        anchor=f"run-{index}",
        manifest=run.manifest,
        state=run.state,
        done=done,
        answers=answers(rows) if len(rows) else [],
        tables=summary_tables(rows) + head_tables(rows) if len(rows) else [],
        pictures=[*(_pictures(known, f"r{index}") if len(known) else []), *_figures(rows, f"r{index}")],
        heads=None if heads is None else safe_json(heads),
        attention=None if attention is None else safe_json(attention),
        texts=None if texts is None else safe_json(texts),
        left_out=0 if texts is None else texts["left_out"],
        config=json.dumps(run.manifest["config_as_given"], indent=2, ensure_ascii=False),
        failures=[f"{labels.get(f['key'], f['key'])}: {f['error']}" for f in run.manifest["failures"]],
    )


def _compared(runs: Sequence[Run]) -> list[Table]:
    """Figures of all runs beside each other."""
    if len(runs) < 2:
        return []
    from harness.analysis.pivot import column_names, pivots
    from harness.core.format import interval

    made = []
    for pivot in pivots(runs):
        body = [
            [
                *row,
                *(
                    "–" if (cell := pivot.cells.get((row, c))) is None else interval(cell.interval)
                    for c in pivot.columns
                ),
            ]
            for row in pivot.rows
        ]
        note = pivot.note.partition(" Bold:")[0]
        made.append(Table(pivot.title, [*pivot.row_factors, *column_names(pivot)], body, note))
    return made


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
    sections = [_section(run, name, i) for i, (run, name) in enumerate(zip(runs, run_names(runs), strict=True))]
    used = sorted({name for run in runs for name in run.rows["metric"].unique()})
    return render(
        "report.html.j2",
        sections=sections,
        compared=_compared(runs),
        metrics=[found for found in map(find_metric, used) if found is not None],
        attention_about=ABOUT,
        title=", ".join(section.name for section in sections),
    )


def render(template: str, **content: Any) -> str:
    """One document that needs nothing else: a template with its style, its script and what it shows.

    Args:
        template: its name in the folder of templates.
        **content: what it shows; texts are escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8").strip()
    return environment.get_template(template).render(
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=re.sub(r"\n\s*", "\n", (TEMPLATES / "report.css").read_text(encoding="utf-8")),
        made=now(),
        **content,
    )


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write the report of runs to a file, as a whole or not at all.

    Raises:
        UsageError: as `render_report`, or the file cannot be written.
    """
    write_page_file(path, lambda: render_report(runs))


def write_page_file(path: Path, page: Callable[[], str]) -> None:
    """Write a page to a file, as a whole or not at all; it is made only where it can be written.

    Raises:
        UsageError: a folder, or a place that cannot be written to.
    """
    if path.is_dir():
        raise UsageError(f"--output {path}: is a folder; name a file such as report.html")
    text = page()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except OSError as error:
        raise UsageError(f"--output {path}: cannot be written: {error.strerror}") from None
