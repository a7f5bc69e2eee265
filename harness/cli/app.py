"""The command line: verbs that parse, call and print. Everything heavy is imported inside its verb."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import docs as cli_docs
from harness.cli import explain as cli_explain
from harness.cli import export as cli_export
from harness.cli import heads as cli_heads
from harness.cli import lists as cli_lists
from harness.cli import lm_eval as cli_lm_eval
from harness.cli import models as cli_models
from harness.cli import new as cli_new
from harness.cli import push as cli_push
from harness.cli import results as cli_results
from harness.cli import signals, streams
from harness.cli.completion import complete_config
from harness.cli.progress import Bars
from harness.core.errors import HarnessError, OutputError, UsageError, nearest, one_line
from harness.report.render import FORMATS
from harness.report.terminal import console, help_width, print_tables, say, say_format, working

if TYPE_CHECKING:
    from harness.runs.reading import Reading

# typer carries its own copy of click in some versions: these are the classes of whichever it uses
_CLICK_USAGE_ERROR, _CLICK_ERROR = typer.BadParameter.__mro__[1:3]

INTERRUPTED = 130  # exit code after Ctrl-C, where the command line took no signals itself

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Test the theory of context-conditioned Markov chains on real attention models.

    Example: ccmc run quickstart""",
)


def _version(wanted: bool) -> None:
    if wanted:
        from ccmc import __version__

        say(f"ccmc {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Examples: ccmc run quickstart | ccmc run my.yaml --set generation.seeds=3 --limit 2 --out results/try"
)
def run(
    config: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or the name of a shipped config such as quickstart.", autocompletion=complete_config
        ),
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one value; may be given many times.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most N prompts per split and N repetitions per cell: a smoke run.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run directory; default results/<name>-<first 8 of the config hash>.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Units done at once; the rows do not depend on it. Default 1, on a cluster all it can."),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(help="Where units run: serial, processes, ray, or local: serial or processes by --workers."),
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: HOST:PORT, auto or ray://...; default: one on this machine.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Folder URL that all nodes reach, where they do not share the run directory.")
    ] = None,
    keep_old_units: Annotated[
        bool,
        typer.Option("--keep-old-units", help="Use stored units that other versions of packages made."),
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="Print every table at the end.")] = False,
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv or json.")] = "rich",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, say what would be done and how long it takes; stop."),
    ] = False,
) -> None:
    """Execute a config and print what it found; started again, it goes on where it stopped."""
    cli_results.one_of("--format", format_, FORMATS)
    if dry_run:
        with Bars(console(stderr=True)) as bars:
            from harness.cli.dry_run import print_estimate
            from harness.experiments.estimating import estimate

            found = estimate(config, overrides=set_ or [], limit=limit, out=out, workers=workers, progress=bars.prepare)
        print_estimate(found, format_)
        return
    with Bars(console(stderr=True)) as bars:
        from harness.experiments.run import run as execute  # the imports take seconds: the bar is there first

        done = execute(
            config,
            overrides=set_ or [],
            limit=limit,
            out=out,
            workers=workers,
            executor=executor,
            keep_old_units=keep_old_units,
            address=address,
            storage=storage,
            progress=bars.prepare,
            watcher=bars,
            on_plan=bars.planned,
        )
    _say(done, [], all_, format_)


@app.command(
    epilog="Examples: ccmc show quickstart-1a2b3c4d | ccmc show results/reference/quickstart heads.by-layer | "
    "ccmc show results/reference/quickstart --format markdown"
)
def show(
    run: cli_results.RunArgument,
    names: Annotated[
        list[str] | None, typer.Argument(help="Tables to print; a run lists its tables at its end.", metavar="NAME")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Print every table.")] = False,
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv or json.")] = "rich",
) -> None:
    """Print what a run says: answers in words, a small table per experiment, and the names of all other tables."""
    cli_results.one_of("--format", format_, FORMATS)
    from harness.runs.run import load_run

    _say(load_run(run), names or [], all_, format_)


def _say(run: Any, names: Sequence[str], everything: bool, format_: str) -> None:
    """Print what a run says.

    Args:
        run: an opened run.
        names: of tables; none: answers, headlines and the names of the other tables.
        everything: all tables in the place of the headlines.
        format_: rich, or one of those that give everything, uncut.
    """
    from harness.report import kept_readings, overview

    with working("pooling rows"):
        readings = kept_readings.readings(run)
    _warn(run, readings)
    tables = overview.chosen(readings, names) if names else [table for one in readings for table in one.tables]
    if format_ != "rich":
        answers = [] if names else overview.in_order(readings)
        say_format(overview.to_text(run, answers, tables, format_), format_)
    elif names:
        print_tables(tables, more=f"ccmc show {run.path} {' '.join(names)} --format csv")
    else:
        overview.print_overview(run, readings, everything)
    kept_readings.keep(run, readings)


def _warn(run: Any, readings: Sequence[Reading]) -> None:
    """One line for each plugin that is left out, experiment that is not installed and part that could not be made."""
    from harness.core import registry

    for problem in registry.problems():
        cli_results.warn(problem)
    known = registry.experiments()
    for kind in dict.fromkeys(experiment["kind"] for experiment in run.manifest["config"]["experiments"]):
        if kind not in known:
            cli_results.warn(
                f"experiment {kind!r} is not installed here: its rows have no tables{nearest(kind, known)}"
            )
    for one in readings:
        for problem in one.problems:
            cli_results.warn(problem)


@app.command(epilog="Example: ccmc plot results/reference/generation/smollm2")
def plot(run: Annotated[str, typer.Argument(help="A run directory, or its name under results/.")]) -> None:
    """Draw the figures of a run again, into its folder plots/."""
    from harness.experiments.run import draw_figures
    from harness.runs.run import load_run

    written = draw_figures(load_run(run))
    for path in written:
        say(str(path))
    if not written:
        say("none of this run's experiments has a figure")


@app.command(epilog="Example: ccmc verdicts results/reference/paper/*")
def verdicts(
    runs: Annotated[list[str], typer.Argument(help="Run directories, or their names under results/.")],
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv or json.")] = "rich",
) -> None:
    """Print the verdicts of runs on the theory as one table."""
    cli_results.one_of("--format", format_, FORMATS)
    import pandas as pd

    from harness.experiments._shared.claims_words import verdict_table
    from harness.runs.run import load_run

    table = verdict_table(pd.concat([load_run(run).rows for run in runs], ignore_index=True))
    if not table.rows:
        raise UsageError(f"verdicts {' '.join(runs)}: no run of the paper's experiments among them")
    print_tables([table], format_)


cli_explain.register(app)
cli_results.register(app)
cli_heads.register(app)
cli_export.register(app)
cli_new.register(app)
cli_lm_eval.register(app)
cli_push.register(app)
cli_lists.register(app)
cli_models.register(app)
cli_docs.register(app)


def _one_warning(message: Warning | str, *_: Any, **__: Any) -> str:
    from harness.report.render.cells import visible

    return f"warning: {visible(' '.join(str(message).split()))}\n"


def main() -> int:
    """Run the command line of this process and return its exit code: every error is one line."""
    warnings.formatwarning = _one_warning
    streams.settle()
    # Libraries make a million objects that stay: searching these for rubbish at every turn takes a second and more.
    gc.set_threshold(100_000, 20, 20)
    code = flushed(invoke(sys.argv[1:]))
    gc.freeze()
    return code


def flushed(code: int) -> int:
    """The exit code of a command, once its output is written; where that fails, the code that says so."""
    try:
        return streams.flush() or code
    except OutputError as error:
        return code or _complain(str(error), error.exit_code)


def invoke(arguments: list[str]) -> int:
    """Run a command line and return its exit code.

    0 done, 1 a gate failed, 2 wrong use, 3 some units failed, 4 internal error, 130 interrupted, 141 the reader of the
    output went away before its end. `main` turns a signal into 128 and its number.

    Raises:
        signals.Stop: where a signal came and `signals.install` was called.
    """
    try:
        code = app(arguments, prog_name="ccmc", standalone_mode=False, terminal_width=help_width())
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except _CLICK_ERROR as error:  # type: ignore[misc]
        message: str = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            say(message)
            return 2
        context = getattr(error, "ctx", None)
        see = f" (see: {context.command_path} --help)" if isinstance(error, _CLICK_USAGE_ERROR) and context else ""
        return _complain(message + see, 2)
    except HarnessError as error:
        if isinstance(error, OutputError):
            streams.drop(sys.stdout)  # nothing more can be flushed into it
        return _complain(str(error), error.exit_code)
    except SystemExit as left:
        if not isinstance(left.__context__, BrokenPipeError):
            raise
        # The reader has enough, as in `ccmc table RUN | head`; typer and rich would end with the code of a failed gate.
        streams.drop(sys.stdout)
        return streams.PIPE_CLOSED
    except Exception as error:
        if signals.received() is not None:  # a library made another error of it, as a broken import does
            raise signals.Stop from None
        import traceback

        traceback.print_exc()
        return _complain(f"internal error: {type(error).__name__}: {one_line(error)}", 4)
    if code == INTERRUPTED:  # typer turns an interrupt into this code without a word
        return _complain("interrupted; finished units are stored, the same command goes on from there", code)
    return code if isinstance(code, int) else 0


def _complain(message: str, code: int) -> int:
    say(f"ccmc: {' '.join(message.split())}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
