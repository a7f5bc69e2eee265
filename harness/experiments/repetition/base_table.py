"""Which base transitions surrogates were fitted with, and how well each predicted training texts by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from harness.core.records import Cell, Column, Table
from harness.experiments._shared.leading import Leading
from harness.experiments.repetition.bigrams import BIGRAM
from harness.experiments.repetition.parts import Part


def base_table(rows: pd.DataFrame, found: Sequence[Part]) -> Table | None:
    """One line per model, strategy and base transitions; None where there were none to choose.

    Args:
        rows: of the experiment, from one run.
        found: its parts.
    """
    known = [(part.model, part.strategy) for part in found]
    given = rows[rows["metric"].isin(["base_loss", "base_chosen"])]
    if given.empty:
        return None
    given = given.assign(
        base=[json.loads(text)["base"] for text in given["condition"]], value=given["value"].astype(float)
    )
    wide = given.pivot_table(
        index=["model", "strategy", "base"],
        columns="metric",
        values="value",
        aggfunc=["mean", "sum", "count"],
        sort=False,
    )
    keys = [key for key in wide.index if key[:2] in known]
    if not keys:
        return None
    lead = Leading(("model", "strategy"), [key[:2] for key in keys])
    body: list[list[Cell]] = []
    for key in keys:
        line = wide.loc[key]
        times, folds = int(line["sum", "base_chosen"]), int(line["count", "base_chosen"])
        body.append([*lead.cells(key[:2]), base_name(key[2]), float(line["mean", "base_loss"]), f"{times} of {folds}"])
    return Table(
        "repetition.bases",
        f"Base transitions: {lead.same}",
        [
            *lead.columns,
            Column("base transitions", left=True),
            Column("loss", "nats"),
            Column("chosen in folds"),
        ],
        body,
        "loss: cross-entropy of base transitions alone to the model's raw distributions along training texts, mean "
        "over folds. All surrogates of a fold have those with the least. A bigram is counted without the text that it "
        "predicts.",
    )


def base_name(base: str) -> str:
    """In words: a neutral context, or the bigram."""
    return f"{BIGRAM} of training texts" if base == BIGRAM else f"model's, after {base!r}"
