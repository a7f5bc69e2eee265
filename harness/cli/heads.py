"""The verbs on single heads of a run: heads, attention, export. They parse, call and print."""

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


def export(
    run: RunArgument,
    folder: Annotated[
        Path | None, typer.Argument(help="With --surrogate: the folder of the model of transformers.")
    ] = None,
    head: Annotated[str | None, typer.Option(metavar="L.H", help="A head, as layer.head, for `ccmc`.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")] = Path("chain.safetensors"),
    surrogate: Annotated[
        str | None,
        typer.Option(help="Of a head: ccmc-fit (default), ccmc-weights or shuffled-weights. Without --head: one of the "
                     "experiment repetition: context-logit, context-logit-closed, bigram, suffix or unigram."),
    ] = None,
    model: ModelOption = None,
    tokens: Annotated[int | None, typer.Option(min=2, help="Keep only so many tokens, the most frequent.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Of repetition: such as temperature=1; default: the first.")
    ] = None,
    rung: Annotated[
        str | None, typer.Option(help="Of context-logit: by the entry that it adds; default: the last.")
    ] = None,
    fold: Annotated[int, typer.Option(min=0, help="Of repetition: the fold whose prompts it has not seen.")] = 0,
    law: Annotated[str, typer.Option(help="Of repetition: decoded or raw.")] = "decoded",
    compact: Annotated[
        bool, typer.Option("--compact", help="Rows of base transitions keep their likeliest tokens and a common tail.")
    ] = False,
) -> None:  # fmt: skip
    """Write a chain that a run has fitted: of a head for `ccmc`, or of the whole model for transformers.

    It is fitted again from the run's texts.
    """
    from harness.runs.run import load_run

    if head is None:
        if surrogate is None or folder is None:
            raise UsageError("export: name a head (--head 5.3), or a surrogate and a folder (--surrogate suffix DIR)")
        from harness.experiments.repetition.export import Wanted
        from harness.experiments.repetition.export import export as write_model

        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder}: is there already; name a new folder")
        wanted = Wanted(surrogate, strategy, rung, fold, law, model, compact)
        with progress_line(surrogate) as progress:
            made = write_model(load_run(run), wanted, folder, progress)
        if made.config.closed:
            say("closed: tokens outside the context get -inf, and texts with one an infinite perplexity")
        say(f"model: {folder} (import harness.hf, then AutoModelForCausalLM.from_pretrained)")
        return
    from harness.experiments.heads.export import export as write
    from harness.experiments.heads.refit import refit

    if folder is not None:
        raise UsageError(f"export: {folder}: a head goes to a file, --output chain.safetensors")
    if output.suffix != ".safetensors" or output.is_dir():
        raise UsageError(f"--output {output}: name a file that ends in .safetensors")
    with progress_line(f"head {head}") as progress:
        fit = refit(load_run(run), head, surrogate, model, progress)
    kind, beside = write(fit, output, tokens)
    say(f"chain: {output} (load it with ccmc.{kind}.load)\ntokens: {beside}")


_VERBS: dict[str, tuple[Any, str]] = {
    "heads": (heads, "Examples: ccmc heads results/mine | ccmc heads results/mine --head 5.3 --query ' the'"),
    "attention": (attention, "Example: ccmc attention results/mine --head 5.3,5.4 -o attention.html"),
    "export": (
        export,
        "Examples: ccmc export results/mine --head 5.3 -o chain.safetensors | "
        "ccmc export results/mine my-chain --surrogate context-logit --strategy temperature=1",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for name, (verb, examples) in _VERBS.items():
        app.command(name, epilog=examples)(verb)
