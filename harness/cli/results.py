"""The verbs on finished runs: verify, table, compare, power, leaderboard, gate, report: parse, call and print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.completion import complete_effect, complete_metric, complete_run
from harness.core.errors import UsageError, nearest
from harness.report.render import FORMATS
from harness.report.terminal import print_line, print_prose, print_tables, say, say_format, width, working

RunArgument = Annotated[
    str, typer.Argument(help="A run directory, or its name under results/.", autocompletion=complete_run)
]
RunArguments = Annotated[
    list[str], typer.Argument(help="Run directories, or their names under results/.", autocompletion=complete_run)
]


def verify(run: RunArgument) -> None:
    """Check that a run is complete, in its schema, and as it was written; exit code 1 where it is not."""
    from harness.runs.run import load_run
    from harness.runs.verify import verify as check
    from harness.runs.versions import kept_lines

    opened = load_run(run)
    found = check(opened.path)
    for line in kept_lines(opened.manifest):
        print_line(f"note: {line}")
    for problem in found.problems:
        print_line(problem)
    checked = f"{found.files} files, {found.units} units, {found.rows:,} rows"
    if found.problems:
        count = len(found.problems)
        print_line(f"{opened.path}: {count} problem{'s' if count > 1 else ''} ({checked} checked)")
        raise typer.Exit(1)
    print_line(f"{opened.path}: verified: {checked}")


def names_of(texts: list[str] | None) -> list[str]:
    """Names given as `a,b` or in several options."""
    return [name.strip() for text in texts or [] for name in text.split(",") if name.strip()]


def one_of(option: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that an option does not take.

    Raises:
        UsageError: names the nearest.
    """
    if value not in known:
        raise UsageError(f"{option} {value!r}{nearest(value, known)}")


def warn(problem: str) -> None:
    """One line on stderr about something that is left out."""
    say(f"warning: {' '.join(problem.split())}", err=True)


def table(
    runs: RunArguments,
    rows: Annotated[
        list[str] | None, typer.Option(help="Factors down the side: surrogate, layer, K, ...; a,b or repeated.")
    ] = None,
    columns: Annotated[list[str] | None, typer.Option(help="Factors across: strategy, run, model, layer, ...")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metrics to show; default: the headline of each experiment.", autocompletion=complete_metric),
    ] = None,
    where: Annotated[list[str] | None, typer.Option(metavar="A=B", help="Only rows where a factor is this.")] = None,
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv, json or html.")] = "rich",
) -> None:
    """Pivot the rows of one or many runs; each figure has its interval, bold where it beats all others (Holm)."""
    one_of("--format", format_, (*FORMATS, "html"))
    from harness.analysis.pivot import frame, pivots
    from harness.runs.run import load_run

    with working("pooling rows"):
        found = pivots(
            [load_run(run) for run in runs], names_of(rows), names_of(columns), names_of(metric), where or []
        )
    if format_ == "csv":
        from harness.report.render.data import frame_csv

        say(frame_csv(frame(found)), nl=False)
        return
    tables = [pivot.wide() for pivot in found]
    if format_ == "rich":
        from harness.report.render.layout import fits

        space = width()
        tables = [one if fits(one, space) else pivot.long() for one, pivot in zip(tables, found, strict=True)]
    print_tables(tables, format_)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(help="Run directories; RUN:MODEL for one model of several.", autocompletion=complete_run),
    ],
    baseline: Annotated[
        str | None, typer.Option(help="Compare every RUN with this one.", autocompletion=complete_run)
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Default: all that have a better direction.", autocompletion=complete_metric),
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare figures that do not mean the same.")] = False,
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv or json.")] = "rich",
) -> None:
    """Compare A with B, or many runs with a baseline, pair by pair: difference, interval, corrected p, wins, movers."""
    one_of("--format", format_, FORMATS)
    if baseline is None and len(runs) != 2:
        raise UsageError(f"compare takes two runs, or any number and --baseline REF; got {len(runs)}")
    from harness.analysis import compare as comparing
    from harness.analysis.sides import one_side, open_sides

    metrics = names_of(metric)
    with working("comparing"):
        if baseline is None:
            found = [comparing.compare(one_side(runs[0]), one_side(runs[1]), metrics, anyway)]
            shown = comparing.tables(found[0])
        else:
            found = comparing.against_baseline(open_sides(runs), one_side(baseline), metrics, anyway)
            shown = [comparing.baseline_table(found)]
    for comparison in found:
        for line in comparing.warnings(comparison):
            said = f"{comparison.a.name if baseline else 'note'}: {line}"
            if format_ == "rich":
                print_prose(said, rest="  ")
            else:
                say(said, err=format_ in {"csv", "json"})
    if format_ == "csv":
        from harness.report.render.data import frame_csv

        say(frame_csv(comparing.frames(found)), nl=False)
    else:
        print_tables(shown, format_)


def power(
    run: RunArgument,
    effect: Annotated[
        list[str],
        typer.Option(
            metavar="METRIC=SIZE",
            help="A difference to be found, such as seq_rep_4=.05; may be given many times.",
            autocompletion=complete_effect,
        ),
    ],
    model: Annotated[list[str] | None, typer.Option(help="Only these models; a,b or repeated.")] = None,
    strategy: Annotated[list[str] | None, typer.Option(help="Only this strategy; may be given many times.")] = None,
    surrogate: Annotated[list[str] | None, typer.Option(help="Only these surrogates; a,b or repeated.")] = None,
    equivalence: Annotated[
        bool, typer.Option("--equivalence", help="SIZE is a margin, within which equal means are to be shown to agree.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv or json.")] = "rich",
) -> None:
    """Say how many prompts and seeds find a difference of a surrogate to the model, and what RUN could have found.

    Variances between prompts and between seeds of a prompt are estimated from the rows of RUN.
    """
    format_ = "json" if json_ else format_
    one_of("--format", format_, FORMATS)
    from harness.analysis import power as sizing
    from harness.runs.run import load_run

    opened = load_run(run)
    with working("estimating variances"):
        wanted = sizing.effects_of(effect)
        found = sizing.powers(opened, wanted, names_of(model), strategy or [], names_of(surrogate), equivalence)
    shown, said = sizing.table(found, equivalence), sizing.answers(found, equivalence)
    from harness.report import overview

    if format_ != "rich":
        say_format(overview.to_text(opened, said, [shown], format_), format_)
        return
    print_tables([shown])
    for answer in said:
        say()
        print_prose(overview.answer_text(answer))


def leaderboard(
    folder: Annotated[Path, typer.Argument(help="Where the runs are, two levels deep.")] = Path("results"),
    metric: Annotated[
        str | None,
        typer.Option(help="Rank by this; default: the headline of each experiment.", autocompletion=complete_metric),
    ] = None,
    surrogate: Annotated[str | None, typer.Option(help="Rank this surrogate; default: the best of each run.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also show figures that only one run has.")] = False,
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv or json.")] = "rich",
) -> None:
    """Rank the runs of a folder; a rank is shared where no difference is beyond chance (Holm)."""
    one_of("--format", format_, FORMATS)
    from harness.analysis import leaderboard as ranking

    sides, left_out = ranking.folder_sides(folder)
    for line in left_out:
        say(f"left out: {line}", err=format_ in {"csv", "json"})
    with working("ranking"):
        tables = ranking.leaderboard(sides, metric, surrogate)
    contests = [table for table in tables if len(table.rows) > 1]
    if all_ or format_ != "rich" or not contests:
        print_tables(tables, format_)
        return
    print_tables(contests)
    if alone := len(tables) - len(contests):
        say()
        print_prose(f"Not ranked: {alone} figures that only one run has; --all shows them.")


def revisions(
    runs: Annotated[
        list[str], typer.Argument(help="Runs of one model, each with another revision.", autocompletion=complete_run)
    ],
    metric: Annotated[
        str | None, typer.Option(help="Default: the headline of each experiment.", autocompletion=complete_metric)
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the curves into this file.")] = None,
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv or json.")] = "rich",
) -> None:
    """Follow one model over its revisions: each figure, and its change since the one before and the first."""
    one_of("--format", format_, FORMATS)
    from harness.analysis.leaderboard import revisions as follow
    from harness.analysis.sides import open_sides

    found = follow(open_sides(runs), metric)
    print_tables([table for table, _ in found], format_)
    if svg is not None:
        from harness.report.pictures import curves_svg

        _write(svg, curves_svg(found))


def gate(
    run: RunArgument,
    baseline: Annotated[str, typer.Option(help="The run that it must not be worse than.", autocompletion=complete_run)],
    tolerance: Annotated[Path | None, typer.Option(help="YAML of tolerated changes; default: built in.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the findings as JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a summary as Markdown.")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Make RUN the new baseline: complete, verified, of a clean checkout.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="What is undecided fails too.")] = False,
) -> None:
    """Fail with exit code 1 where a run is worse than its baseline, or something is missing or new.

    A figure is worse where it moved the wrong way by more than its tolerance, beyond chance. It is ok where its change
    is shown to be within the tolerance, or the run was large enough to find a larger one. Otherwise it is undecided,
    and is printed with the change that could have been found; --strict fails on it. Runs that cannot be compared end
    with exit code 2.
    """
    from harness.runs.run import load_run

    opened = load_run(run)
    if update:
        from harness.analysis.baseline import update_baseline

        update_baseline(opened, Path(baseline))
        print_line(f"{baseline}: is now a copy of {opened.path}")
        return
    from harness.analysis.gate import gate as judge
    from harness.analysis.tolerance import load_tolerance
    from harness.report.gate_output import summary, tables, to_junit, to_markdown

    allowed = load_tolerance(tolerance)
    with working("judging"):
        verdict = judge(opened, load_run(baseline), allowed, strict)
    for path, text in ((junit, to_junit), (markdown, to_markdown)):
        if path is not None:
            _write(path, text(verdict, str(opened.path), baseline))
    for note in verdict.notes:
        print_prose(f"note: {note}", rest="  ")
    if shown := tables(verdict, str(opened.path), baseline):
        print_tables(shown, more="--markdown FILE")
    print_prose(summary(verdict), rest="  ")
    if not verdict.passed:
        raise typer.Exit(1)


def report(
    runs: RunArguments,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file to write; default: report.html in the run's folder, of several runs here."
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML file: answers, tables that sort and filter, pictures, texts, provenance."""
    with working("writing the report: imports"):
        from harness.report.page import write_report
        from harness.runs.run import load_run

        opened = [load_run(run) for run in runs]
    if output is None:
        output = opened[0].path / "report.html" if len(opened) == 1 else Path("report.html")
    with working(f"writing the report: {len(opened)} run{'s' if len(opened) > 1 else ''}"):
        write_report(opened, output)
    say(f"report: {output} ({output.stat().st_size / 1e6:.1f} MB)")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


_VERBS: dict[str, tuple[Any, str]] = {
    "compare": (
        compare,
        "Examples: ccmc compare results/a results/b | ccmc compare results/x results/y --baseline results/reference/z",
    ),
    "leaderboard": (leaderboard, "Example: ccmc leaderboard results --metric explained"),
    "power": (
        power,
        "Examples: ccmc power results/mine --effect seq_rep_4=.05 | "
        "ccmc power results/mine --effect seq_rep_4=.05 --effect loop_share=.1 --equivalence --strategy greedy",
    ),
    "revisions": (revisions, "Example: ccmc revisions results/step1000 results/step2000 --svg curve.svg"),
    "gate": (
        gate,
        "Examples: ccmc gate results/smoke --baseline results/reference/smoke --junit gate.xml | "
        "ccmc gate results/smoke --baseline results/reference/smoke --update",
    ),
    "report": (report, "Examples: ccmc report results/mine | ccmc report results/a results/b -o both.html"),
    "table": (
        table,
        "Examples: ccmc table results/reference/quickstart --metric kl --columns strategy | "
        "ccmc table results/a results/b --rows layer --where strategy=greedy --format latex",
    ),
    "verify": (verify, "Example: ccmc verify results/reference/quickstart"),
}


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for name, (verb, examples) in _VERBS.items():
        app.command(name, epilog=examples)(verb)
