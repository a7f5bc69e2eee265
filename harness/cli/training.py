"""The verb that trains a small text model: it parses, calls and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.core.errors import UsageError
from harness.core.records import Cell, Column, Table
from harness.report.terminal import print_tables, progress_line, say

POSITIONS = ("rotary", "none")


def train(
    folder: Annotated[Path, typer.Argument(help="The folder to write: a model of transformers with its tokenizer.")],
    texts: Annotated[
        list[str],
        typer.Option(help="A run, whose models' continuations are learned from; or a .txt (a text a paragraph), "
                     ".json, .jsonl, .csv or .parquet file. May be repeated."),
    ],
    strategy: Annotated[
        str | None, typer.Option(help="Of runs: continuations of this strategy alone, such as temperature=1.")
    ] = None,
    column: Annotated[str, typer.Option(help="Of files: the column that holds the text.")] = "text",
    layers: Annotated[int, typer.Option(min=1, max=12)] = 1,
    heads: Annotated[int, typer.Option(min=1, max=32)] = 4,
    dimension: Annotated[int, typer.Option(min=8, max=1024)] = 128,
    mlp: Annotated[int, typer.Option(min=0, max=8192, help="Width of the MLP; 0: none.")] = 512,
    positions: Annotated[str, typer.Option(help="rotary or none.")] = "rotary",
    vocabulary: Annotated[int, typer.Option(min=257, max=65536, help="Byte pairs.")] = 512,
    context: Annotated[int, typer.Option(min=16, max=8192, help="Tokens that the model reads at most.")] = 512,
    steps: Annotated[int, typer.Option(min=1, help="At most so many; it stops where it gets no better.")] = 2000,
    weight_decay: Annotated[float, typer.Option(min=0, help="Of AdamW; few texts want more.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of split, first weights and batches.")] = 0,
) -> None:  # fmt: skip
    """Train a small transformer on texts: of some it learns, by some it stops, on some it is judged.

    Example: ccmc models train my-model --texts results/reference/generation/smollm2 --strategy temperature=1
    """
    from harness.cli.results import one_of

    one_of("--positions", positions, POSITIONS)
    if dimension % heads:
        raise UsageError(f"--dimension {dimension} is no multiple of --heads {heads}")
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise UsageError(f"{folder}: is there already; name a new folder")
    from harness.models.text_models import Shape, train_text_model
    from harness.models.training import Recipe

    given, origins = _texts(texts, strategy, column)
    shape = Shape(layers, heads, dimension, mlp, "none" if positions == "none" else "rotary", vocabulary, context)
    try:
        with progress_line(str(folder)) as progress:
            found = train_text_model(
                given,
                origins,
                shape,
                Recipe(steps=steps, batch_size=8, weight_decay=weight_decay),
                seed,
                folder,
                progress,
            )
    except ValueError as error:
        raise UsageError(f"models train: {error}") from None
    columns = [Column("predicted by", left=True), Column("held-out loss", "nats a token")]
    rows: list[list[Cell]] = [[name, loss] for name, loss in found.losses.items()]
    said = ", ".join(f"{count:,} {part.replace('_', '-')}" for part, count in found.tokens.items())
    stopped = "it got no better" if found.outcome.stopped_early else "all steps were made: more may make it better"
    caption = (
        f"{found.parameters:,} parameters; tokens: {said}. Stopped at step {int(found.outcome.curve['step'].iloc[-1])} "
        f"since {stopped}; weights of step {found.outcome.best_step}. 95 % intervals, bootstrap over texts."
    )
    print_tables([Table("models.train", f"A text model of {layers} layer{'s' * (layers > 1)}", columns, rows, caption)])
    say(f"model: {folder}")


def _texts(sources: list[str], strategy: str | None, column: str) -> tuple[list[str], list[str]]:
    """Texts, and where each is from: the prompt of a continuation, or its own row."""
    from harness.config.texts import Dataset
    from harness.data.documents import read_rows
    from harness.runs.run import load_run

    texts: list[str] = []
    origins: list[str] = []
    for source in sources:
        if (Path(source) / "manifest.json").exists() or Path(source).is_dir():
            frame = load_run(source).trajectories
            frame = frame[(frame["source"] == "model") & frame["text"].notna()] if len(frame) else frame
            if strategy is not None and len(frame):
                known = sorted(set(frame["strategy"]))
                if strategy not in known:
                    raise UsageError(f"{source}: no strategy {strategy!r}; it has {', '.join(known)}")
                frame = frame[frame["strategy"] == strategy]
            if not len(frame):
                raise UsageError(f"{source}: the run holds no continuations of a model")
            texts += frame["text"].tolist()
            origins += [f"prompt {name}" for name in frame["prompt"]]
            continue
        spec = Dataset(dataset=source, column=column)
        for index, row in enumerate(read_rows(spec, Path(), "--texts", sample_by="paragraph")):
            texts.append(row.text)
            origins.append(f"{source} {index}")
    kept = [(text, origin) for text, origin in zip(texts, origins, strict=True) if text.strip()]
    return [text for text, _ in kept], [origin for _, origin in kept]


def register(app: typer.Typer) -> None:
    """Add the verb to those on models."""
    app.command("train", epilog="Example: ccmc models train my-model --texts results/reference/generation/smollm2")(
        train
    )
