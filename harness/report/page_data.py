"""What a report holds as data: the table of heads, and the texts of the viewer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from harness.core import registry
from harness.core.once import among
from harness.core.rows import MODEL
from harness.measures.winners import winner_set
from harness.models import pieces as token_pieces
from harness.models.catalogue import folder_of
from harness.runs.run import Run

MOST_TEXTS = 400  # of one run; the report says how many are left out
FEW = 6  # prompts of a model that the run trained itself


def _rounded(value: Any) -> float | None:
    return None if pd.isna(value) else float(f"{float(value):.4g}")


def head_table(rows: pd.DataFrame) -> dict[str, Any] | None:
    """Every head, surrogate and strategy of the experiments that are about heads.

    Returns:
        {columns, rows}: means over held-out prompts of every measure that has a direction, the headline of the
        experiment first, with its interval where it has one; None where no experiment is about heads.
    """
    heads = rows[among(rows, "split", "held_out") & ~among(rows, "surrogate", MODEL) & rows["head"].notna()]
    measured = [name for name in heads["metric"].unique() if registry.sign(name)]
    headlines = {kind: registry.headline(kind) for kind in heads["experiment"].unique()}
    about = {kind: one.name for kind, one in headlines.items() if one is not None and one.name in measured}
    if not about:
        return None
    heads = heads[heads["experiment"].isin(about) & heads["metric"].isin(measured)]
    heads = heads.astype({"value": float, "low": float, "high": float})
    by = [*(["experiment"] if len(about) > 1 else []), "model", "strategy", "layer", "head", "surrogate"]
    table = heads.pivot_table(index=by, columns="metric", values="value", sort=False)
    columns = list(by)
    for name in dict.fromkeys([*about.values(), *measured]):
        if name not in table:
            continue
        columns.append(name)
        own = heads[heads["metric"] == name].drop_duplicates(by).set_index(by)
        if name in about.values() and own["low"].notna().any():
            ends = {f"{name} {end}": own[end] for end in ("low", "high")}
            table = table.assign(**ends)
            columns += ends
    table = table.reset_index()
    numeric = {"layer", "head", *columns[len(by) :]}
    records = zip(*(map(_rounded, table[c]) if c in numeric else table[c].astype(str) for c in columns), strict=True)
    return {
        "columns": [{"name": name, "numeric": name in numeric} for name in columns],
        "rows": [list(record) for record in records],
    }


def _prompts(table: pd.DataFrame) -> dict[tuple[str, str], list[int]]:
    """(model, prompt) -> its tokens; walks of surrogates do not repeat them."""
    known = table[table["prompt_tokens"].notna()].drop_duplicates(["model", "prompt"])
    columns = [known[name] for name in ("model", "prompt", "prompt_tokens")]
    return {
        (str(model), str(prompt)): [int(token) for token in ids] for model, prompt, ids in zip(*columns, strict=True)
    }


def _source(row: Mapping[Any, Any]) -> str:
    """Who wrote a continuation: a surrogate with its rung, law and start, where it has them."""
    rung, law, start = (None if pd.isna(row.get(name)) else row[name] for name in ("rung", "law", "t0"))
    said = [str(row["source"]), rung, law and f"{law} law", start and f"from token {int(start)}"]
    return ", ".join(part for part in said if part)


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
    which = [name for name in ("rung", "law", "t0") if name in table]
    table = table.drop_duplicates(["model", "strategy", "prompt", "source", *which])  # the first seed of each
    given = _prompts(table)
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
                "source": _source(row),
                "given": [number(model, token) for token in given.get((model, str(row["prompt"])), [])],
                "made": [number(model, token) for token in continuation],
                "wins": [index for index, token in enumerate(continuation) if token in winners],
                "size": len(winners),
            }
        )
    return {"pieces": list(pieces), "texts": texts, "left_out": left_out} if texts else None
