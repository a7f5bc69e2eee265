"""The verbs on single heads of a run: heads, attention. They parse, call and print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.results import RunArgument, names_of, one_of
from harness.core.errors import UsageError
from harness.report.render import FORMATS
from harness.report.terminal import print_tables, progress_line, say

SurrogateOption = Annotated[
    str | None, typer.Option(help="ccmc-fit (default), ccmc-weights or shuffled-weights.", show_default=False)
]
ModelOption = Annotated[str | None, typer.Option(help="Which model, where the run has several.")]


def heads(
    run: RunArgument,
    head: Annotated[str | None, typer.Option(metavar="L.H", help="Show the transition rows of this head.")] = None,
    query: Annotated[
        list[str] | None, typer.Option(help="The row of this token, such as ' the'; default: of the most frequent.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Keys per query.")] = 10,
    surrogate: SurrogateOption = None,
    model: ModelOption = None,
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv or json.")] = "rich",
) -> None:
    """Rank the heads of a run and say which surrogate is best where; or read the transition rows of one head."""
    one_of("--format", format_, FORMATS)
    from harness.runs.run import load_run

    opened = load_run(run)
    if head is None:
        if query or surrogate or model:
            raise UsageError("heads: --query, --surrogate and --model go with --head, such as --head 5.3")
        from harness.experiments.heads.tables import head_tables
        from harness.runs.resume import unfinished

        tables = head_tables(opened.rows)
        if not tables:
            what = f"{opened.path}: the run has no heads; they come with the experiment `heads`"
            raise UsageError(what + unfinished(opened))
        print_tables(tables, format_)
        return
    from harness.experiments.heads.export import transition_rows
    from harness.experiments.heads.refit import refit

    with progress_line(f"head {head}") as progress:
        fit = refit(opened, head, surrogate, model, progress)
    print_tables(transition_rows(fit, query or [], top), format_)


def attention(
    run: RunArgument,
    head: Annotated[
        list[str] | None,
        typer.Option(
            metavar="L.H",
            help="Heads to show; a,b or repeated. Default: a few of each kind.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("attention.html"),
) -> None:
    """Write one self-contained HTML page: real against predicted attention on a held-out text."""
    from harness.report.attention_page import write_page
    from harness.runs.run import load_run

    write_page(load_run(run), output, names_of(head))
    say(f"attention: {output} ({output.stat().st_size / 1e6:.1f} MB)")


_VERBS: dict[str, tuple[Any, str]] = {
    "heads": (heads, "Examples: ccmc heads results/mine | ccmc heads results/mine --head 5.3 --query ' the'"),
    "attention": (attention, "Example: ccmc attention results/mine --head 5.3,5.4 -o attention.html"),
}


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for name, (verb, examples) in _VERBS.items():
        app.command(name, epilog=examples)(verb)
