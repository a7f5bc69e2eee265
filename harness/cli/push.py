"""The verb that pushes a run to the hub as a dataset: it parses, calls and prints."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.results import RunArgument
from harness.core.errors import UsageError, one_line
from harness.report.terminal import say, working


def push(
    run: RunArgument,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="owner/name of the dataset, made where it is not.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be pushed. So without a token.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Write the dataset to this folder and push nothing.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a dataset that only its owner sees.")] = False,
    texts: Annotated[bool, typer.Option(help="With the continuations.")] = True,
    license_: Annotated[str | None, typer.Option("--license", help="For the card, such as apache-2.0.")] = None,
) -> None:
    """Push a run to the hub as a dataset: rows, continuations, manifest and a card with what it found."""
    from harness.data import hub
    from harness.report.dataset_card import prepare
    from harness.runs.run import load_run

    if not hub.is_name(repository) or "@" in repository:
        raise UsageError(f"push: {repository!r} is no name of a dataset; write it as owner/name")
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is there already; name a new folder")
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        with working("reading the run"):
            sizes = prepare(load_run(run), made, texts, license_)
        if folder is not None:
            shutil.copytree(made, folder, dirs_exist_ok=True)
            say(f"dataset: {folder} ({', '.join(sizes)})")
            return
        from huggingface_hub import get_token

        token = get_token()
        if dry_run or token is None:
            why = "" if token is not None else "; no token was found (hf auth login, or HF_TOKEN)"
            say(f"dry run, nothing is pushed{why}")
            for file, size in sizes.items():
                say(f"  {repository}/{file}: {size:,} bytes")
            return
        with working(f"pushing to {repository}"):
            address = _upload(made, repository, private, token)
    say(f"dataset: {address}")


def _upload(folder: Path, repository: str, private: bool, token: str) -> str:
    """Make the dataset where it is not, and put the files there in one commit."""
    from harness.data import hub, network

    hub.no_retries_told()
    try:
        network.bound_hub()
        from huggingface_hub import HfApi

        api: Any = HfApi(token=token)
        api.create_repo(repository, repo_type="dataset", private=private or None, exist_ok=True)
        done = api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=folder,
                                 commit_message="A run of the CCMC harness")  # fmt: skip
        return str(getattr(done, "commit_url", repository))
    except Exception as error:  # the hub client raises network, permission and validation errors of many kinds
        lost = network.unreachable(error)
        raise UsageError(f"push: {repository}: {lost or one_line(error)[:200]}") from None


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("push", epilog="Example: ccmc push results/mine me/my-run --dry-run")(push)
