"""The verb that writes the pages which are made from code and reference runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.core.errors import UsageError
from harness.report.terminal import say, working


def pages(root: Path) -> dict[Path, str]:
    """File -> text of every generated page.

    Args:
        root: of a checkout.
    """
    from harness.report.config_page import config_page
    from harness.report.results_page import results_page

    return {
        root / "configs" / "README.md": config_page(),
        root / "results" / "README.md": results_page(root / "results"),
    }


def docs(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 where a page is stale.")] = False,
    api: Annotated[
        Path | None, typer.Option(help="Write the reference of the public names and the tutorial there instead.")
    ] = None,
) -> None:
    """Write configs/README.md and results/README.md from the settings, the configs and the reference runs."""
    if api is not None:
        from harness.report.api_pages import write_api

        with working("reading docstrings"):
            written = write_api(api)
        for path in written:
            say(str(path))
        return
    from harness.config.load import shipped_configs

    root = shipped_configs().parent
    if not (root / "results" / "reference").is_dir():
        raise UsageError(f"docs: {root} is no checkout: it has no results/reference")
    with working("reading the reference runs"):
        made = pages(root)
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            say(f"{path.relative_to(root)}: stale; write it again with: ccmc docs")
        else:
            path.write_text(made[path], encoding="utf-8")
            say(f"{path.relative_to(root)}: written")
    if not stale:
        say(f"{len(made)} pages are current")
    elif check:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("docs", epilog="Examples: ccmc docs | ccmc docs --check | ccmc docs --api site")(docs)
