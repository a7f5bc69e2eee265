"""The verb that explains one model in a given time: one run of four experiments, answers in words and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.progress import Bars
from harness.core.errors import UsageError
from harness.core.format import file_safe, number
from harness.report.terminal import console, print_prose, say, working

if TYPE_CHECKING:
    from harness.runs.run import Run


def explain(
    model: Annotated[str, typer.Argument(help="An alias, a hub id, or a folder with a model of transformers.")],
    prompts: Annotated[
        Path | None, typer.Option(help="A YAML list of {id, kind, text}; default: prompts of this project.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long its units may take, by estimate.")] = 10.0,
    out: Annotated[Path | None, typer.Option(help="The run directory; default results/explain-<model>.")] = None,
    workers: Annotated[int | None, typer.Option(help="Units done at once.")] = None,
) -> None:
    """Say how much of a model is a chain, and how it repeats itself; started again, it goes on where it stopped."""
    folder = out or Path("results") / f"explain-{file_safe(Path(model).name)}"
    with Bars(console(stderr=True)) as bars:
        from harness.experiments.run import run as execute

        config, said = _config(model, prompts, minutes, folder, workers, bars.prepare)
        say(said, err=True)
        done = execute(config, out=folder, workers=workers, progress=bars.prepare, watcher=bars, on_plan=bars.planned)
    _tell(done)


def _config(
    model: str, prompts: Path | None, minutes: float, folder: Path, workers: int | None, progress: Any
) -> tuple[dict[str, Any], str]:
    """The config, and a line about it: that of a run that was begun, else one that fits the time.

    Raises:
        UsageError: the folder holds a run of another model.
    """
    from harness.experiments import explaining
    from harness.runs.directory import MANIFEST
    from harness.runs.run import load_run

    if (folder / MANIFEST).is_file():
        begun = load_run(folder)
        config = begun.manifest["config_as_given"]
        if begun.name != "explain" or config.get("models") != [_where(model)]:
            raise UsageError(f"{folder} holds another run; name another folder with --out")
        return config, f"going on with {folder}: its size was chosen when it began"
    from harness.experiments.estimating import largest_that_fits
    from harness.models import catalogue, loading, tokenizers

    progress(0.0, "finding the model")
    path = catalogue.resolve(_where(model), progress, Path()).path
    layers = int(loading.load_config(path).num_hidden_layers)
    every = explaining.all_prompts(prompts or explaining.PROMPTS)
    neutral = explaining.neutral_context(tokenizers.load_tokenizer(path), [one["text"] for one in every])
    configs = [
        explaining.config_of(_where(model), explaining.spread(every, size.prompts), size, layers, neutral)
        for size in explaining.SIZES
    ]
    chosen, found = largest_that_fits(configs, 60.0 * minutes, out=folder, workers=workers, progress=progress)
    config, size, estimate = configs[chosen], explaining.SIZES[chosen], found.total / 60.0
    return config, (
        f"{len(config['prompts'])} prompts, {size.tokens} tokens each, heads of {min(size.layers, layers)} of {layers} "
        f"layers: some {number(estimate)} minutes by estimate"
        + ("" if estimate <= minutes else f", more than {minutes:g}: nothing smaller says anything")
    )


def _where(model: str) -> str:
    """A folder as a whole path, so that a run that is gone on with from elsewhere finds it; a name as it is."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _tell(done: Run) -> None:
    """Print the sentences and the answers, and write the report."""
    from harness.report import overview
    from harness.report.explained import sentences
    from harness.report.page import write_report
    from harness.runs import reading

    with working("pooling rows"):
        readings = reading.read(done.split)
        said = sentences(done.rows, done.trajectories)
    for one in said:
        print_prose(one, "- ", "  ")
    overview.print_overview(done, readings, False)
    with working("writing the report"):
        write_report([done], done.path / "report.html")
    say(f"report: {done.path / 'report.html'}")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    examples = "Examples: ccmc explain smollm2-135m | ccmc explain ./my-model --prompts mine.yaml --minutes 30"
    app.command("explain", epilog=examples)(explain)
