"""What a report holds as data: the table of heads, and the texts of the viewer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from harness.measures.winners import winner_set
from harness.models import pieces as token_pieces
from harness.models.catalogue import folder_of
from harness.runs.run import Run

FIDELITY = ("kl", "total_variation", "top_token")
MOST_TEXTS = 400  # of one run; the report says how many are left out
FEW = 6  # prompts of a model that the run trained itself


def _rounded(value: Any) -> float | None:
    return None if pd.isna(value) else float(f"{float(value):.4g}")


def head_table(rows: pd.DataFrame) -> dict[str, Any] | None:
    """Every head, surrogate and strategy of a run.

    Returns:
        {columns, rows}: explained with its interval, and means of the other measures over held-out prompts; None where
        the run has no heads.
    """
    heads = rows[(rows["split"] == "held_out") & rows["head"].notna() & (rows["surrogate"] != "model")]
    if not (heads["metric"] == "explained").any():
        return None
    by = ["model", "strategy", "layer", "head", "surrogate"]
    means = heads[heads["metric"].isin(FIDELITY)].assign(value=lambda part: part["value"].astype(float))
    table = means.pivot_table(index=by, columns="metric", values="value", sort=False)
    own = (
        heads[heads["metric"] == "explained"].drop_duplicates(by).set_index(by)[["value", "low", "high"]].astype(float)
    )
    table = table.join(own, how="left").reset_index()
    shown = [name for name in FIDELITY if name in table]
    columns = [*by, "explained", "low", "high", *shown]
    table = table.rename(columns={"value": "explained"})
    numeric = set(columns) - {"model", "strategy", "surrogate"}
    records = zip(*(map(_rounded, table[c]) if c in numeric else table[c].astype(str) for c in columns), strict=True)
    return {
        "columns": [{"name": name, "numeric": name in numeric} for name in columns],
        "rows": [list(record) for record in records],
    }


def viewer(run: Run) -> dict[str, Any] | None:
    """Held-out continuations of model and surrogates, token by token, with the winners of each.

    Returns:
        {pieces, texts, left_out}: texts refer to pieces by number; None where the run has no continuations.
    """
    table = run.trajectories
    if table.empty:
        return None
    table = table[(table["split"] == "held_out") & (table["source"] != "text")]  # given texts have no continuation
    table = table.sort_values(["experiment", "seed"], kind="stable")
    table = table.drop_duplicates(["model", "strategy", "prompt", "source"])  # the first seed of each
    named = {model["name"] for model in run.manifest["models"]}
    small = table[~table["model"].isin(named)]  # models that the run trained itself: a few prompts show them
    few = small[small["prompt"].isin(small["prompt"].drop_duplicates()[:FEW])]
    table = pd.concat([table[table["model"].isin(named)], few])
    left_out = max(0, len(table) - MOST_TEXTS)
    pieces: dict[str, int] = {}
    makers: dict[str, Callable[[int], str]] = {}

    def number(model: str, token: int) -> int:
        if model not in makers:
            folder = folder_of(run.manifest, model) if model in named else None
            makers[model] = token_pieces.piece_maker(folder)
        return pieces.setdefault(makers[model](token), len(pieces))

    texts = []
    for row in table.head(MOST_TEXTS).to_dict("records"):
        model, continuation = str(row["model"]), [int(token) for token in row["continuation"]]
        winners = {int(token) for token in winner_set(continuation)}
        texts.append(
            {
                "model": model,
                "strategy": str(row["strategy"]),
                "prompt": str(row["prompt"]),
                "source": str(row["source"]),
                "given": [number(model, int(token)) for token in row["prompt_tokens"]],
                "made": [number(model, token) for token in continuation],
                "wins": [index for index, token in enumerate(continuation) if token in winners],
                "size": len(winners),
            }
        )
    return {"pieces": list(pieces), "texts": texts, "left_out": left_out} if texts else None
