"""The verb `export`: a chain of a head for `ccmc`, or a surrogate of a whole model for transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.heads import ModelOption
from harness.cli.results import RunArgument
from harness.core.errors import UsageError, nearest
from harness.report.terminal import progress_line, say

if TYPE_CHECKING:
    from harness.runs.run import Run

KINDS = ("repetition", "generation")
"""Experiments whose surrogates become models of transformers."""


def export(
    run: RunArgument,
    folder: Annotated[
        Path | None, typer.Argument(help="With --surrogate: the folder of the model of transformers.")
    ] = None,
    head: Annotated[str | None, typer.Option(metavar="L.H", help="A head, as layer.head, for `ccmc`.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")] = Path("chain.safetensors"),
    surrogate: Annotated[
        str | None,
        typer.Option(help="Of a head: ccmc-fit (default), ccmc-weights or shuffled-weights. Without --head: of the "
                     "experiment repetition context-logit, context-logit-closed, bigram, suffix or unigram; of "
                     "generation ccmc-fit, ccmc-open, ccmc-bilinear, ccmc-head, ccmc-mixture, counts, bigram, "
                     "bigram-restricted, in-context-bigram or n-gram."),
    ] = None,
    model: ModelOption = None,
    tokens: Annotated[int | None, typer.Option(min=2, help="Keep only so many tokens, the most frequent.")] = None,
    experiment: Annotated[
        str | None, typer.Option(help="repetition or generation, where the run has both and both have the surrogate.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Such as temperature=1; default: the first.")] = None,
    rung: Annotated[
        str | None, typer.Option(help="Of context-logit: by the entry that it adds; default: the last.")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="Of repetition: the fold whose prompts it has not seen; default: 0.")
    ] = None,
    law: Annotated[str | None, typer.Option(help="Of repetition: decoded (default) or raw.")] = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="Rows of base transitions keep their likeliest tokens and a common tail.")
    ] = False,
    closed: Annotated[
        bool, typer.Option("--closed", help="Of generation: without an escape; tokens outside the context get -inf.")
    ] = False,
) -> None:  # fmt: skip
    """Write a chain that a run has fitted: of a head for `ccmc`, or of the whole model for transformers.

    It is fitted again from the run's texts.
    """
    from harness.runs.run import load_run

    if head is not None:
        if folder is not None:
            raise UsageError(f"export: {folder}: a head goes to a file, --output chain.safetensors")
        _of_head(load_run(run), head, surrogate, model, output, tokens)
        return
    if surrogate is None or folder is None:
        raise UsageError("export: name a head (--head 5.3), or a surrogate and a folder (--surrogate suffix DIR)")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is there already; name a new folder")
    opened = load_run(run)
    kind = chosen_kind(opened, surrogate, experiment)
    own: dict[str, dict[str, Any]] = {
        "repetition": {"--rung": rung, "--fold": fold, "--law": law, "--compact": compact or None},
        "generation": {"--closed": closed or None},
    }
    for other, options in own.items():
        if other != kind and (given := [name for name, value in options.items() if value is not None]):
            raise UsageError(f"{given[0]} goes with runs of {other}; {surrogate} comes from {kind} here")
    write: Callable[..., Any]
    if kind == "generation":
        from harness.experiments.generation.export import Wanted
        from harness.experiments.generation.export import export as write

        wanted: Any = Wanted(surrogate, strategy, model, closed)
    else:
        from harness.experiments.repetition.export import Wanted as OfFold
        from harness.experiments.repetition.export import export as write

        wanted = OfFold(surrogate, strategy, rung, fold or 0, law or "decoded", model, compact)
    with progress_line(surrogate) as progress:
        made = write(opened, wanted, folder, progress)
    if made.config.closed:
        say("closed: tokens outside the context get -inf, and texts with one an infinite perplexity")
    say(f"model: {folder} (import harness.hf, then AutoModelForCausalLM.from_pretrained)")


def chosen_kind(run: Run, surrogate: str, given: str | None) -> str:
    """The experiment of the run that a surrogate comes from.

    Raises:
        UsageError: the run has none of `KINDS`, or both have the surrogate.
    """
    there = [one["kind"] for one in run.manifest["config"]["experiments"] if one["kind"] in KINDS]
    if given is not None:
        if given not in there:
            what = ", ".join(there) or "none whose surrogates become models"
            raise UsageError(f"--experiment {given!r}: the run has {what}{nearest(given, there)}")
        return given
    if len(there) < 2:
        return there[0] if there else KINDS[0]  # which says what it needs
    from harness.experiments.generation.opening import EXPORTED as OF_GENERATION
    from harness.experiments.repetition.export import EXPORTED as OF_REPETITION

    known = {"repetition": OF_REPETITION, "generation": OF_GENERATION}
    having = [kind for kind in there if surrogate in known[kind]]
    if not having:
        every = "; ".join(f"of {kind} {', '.join(known[kind])}" for kind in there)
        names = [name for kind in there for name in known[kind]]
        raise UsageError(f"--surrogate {surrogate!r} cannot be exported{nearest(surrogate, names)}; {every} can be")
    if len(having) > 1:
        raise UsageError(f"--surrogate {surrogate}: two experiments have it; add --experiment {' or '.join(having)}")
    return str(having[0])


def _of_head(run: Run, head: str, surrogate: str | None, model: str | None, output: Path, tokens: int | None) -> None:
    """Write the chain of one head."""
    from harness.experiments.heads.export import export as write
    from harness.experiments.heads.refit import refit

    if output.suffix != ".safetensors" or output.is_dir():
        raise UsageError(f"--output {output}: name a file that ends in .safetensors")
    with progress_line(f"head {head}") as progress:
        fit = refit(run, head, surrogate, model, progress)
    kind, beside = write(fit, output, tokens)
    say(f"chain: {output} (load it with ccmc.{kind}.load)\ntokens: {beside}")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "export",
        epilog="Examples: ccmc export results/mine --head 5.3 -o chain.safetensors | "
        "ccmc export results/mine my-chain --surrogate context-logit --strategy temperature=1 | "
        "ccmc export results/mine my-chain --surrogate ccmc-fit",
    )(export)
