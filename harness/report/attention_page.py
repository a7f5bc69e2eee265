"""Real against predicted attention on a text: what a run kept of it, as the data of a page that shows it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.core.errors import UsageError, nearest
from harness.data.tokenisation import check_ids
from harness.experiments.heads.single_heads import Head, heads_of
from harness.models import pieces as token_pieces
from harness.models.catalogue import folder_of
from harness.runs.directory import RunDirectory
from harness.runs.resume import unfinished
from harness.runs.run import Run
from harness.runs.writing import ATTENTION

MOST_HEADS = 12  # of a text, unless they are named
MOST_UNNAMED = 400  # of one text, where no table says which are worth a look
ABOUT = (
    "Attention of single heads over the beginning of a text that no fit read, and what a surrogate predicts of it. "
    "Choose a token as the query; every token is shaded by the share that it gets in all its occurrences, as in the "
    "theory, the darkest by the largest share of the two. "
    "In the squares (queries down, keys across) the share of a token is spread evenly over its occurrences. The first "
    "position is left out."
)


def samples(run: Run) -> pd.DataFrame:
    """The attention that the finished units of a run kept; empty where they kept none."""
    store = RunDirectory(run.path)
    files = [store.unit(unit["key"]) / ATTENTION for unit in run.manifest["units"]]
    frames = [pd.read_parquet(file) for file in files if file.is_file()]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def notable(heads: Sequence[Head]) -> list[str]:
    """Names of the heads that are shown by default: the best explained of each kind, and the best and worst of all."""

    def value(head: Head) -> float:
        found = head.explained[head.best].value if head.best else None
        return -np.inf if found is None else found

    order = sorted(heads, key=value, reverse=True)
    kinds = {head.kind: head for head in reversed(order)}
    wanted = [*kinds.values(), *order[:3], *order[-3:]]
    return [head.name for head in sorted(wanted, key=lambda h: (h.layer, h.head))]


def _pieces(run: Run, model: str, prompt: str, tokens: Sequence[int]) -> list[str]:
    """Text of each token; where the model's files are on this machine, ids that it has no tokens for are refused."""
    ids, folder = [int(token) for token in tokens], folder_of(run.manifest, model)
    if folder is not None:
        from harness.models.loading import load_config  # transformers takes seconds to import

        check_ids(ids, f"{run.path}: {ATTENTION}: text {prompt!r}", model, int(load_config(folder).vocab_size))
    piece = token_pieces.piece_maker(folder)
    return [piece(token) for token in ids]


def page_data(run: Run, heads: Sequence[str] = ()) -> dict[str, Any] | None:
    """The texts and heads of the page.

    Args:
        run: a run of heads.
        heads: which, as `layer.head`; by default those of `notable`.

    Returns:
        {texts, heads}; None where the run kept no attention.

    Raises:
        UsageError: a head that the run does not have; names the nearest. An id that the model has no token for.
    """
    table = samples(run)
    if table.empty:
        return None
    table = table.assign(name=table["layer"].astype(str) + "." + table["head"].astype(str))
    known = sorted(table["name"].unique())
    for name in heads:
        if name not in known:
            raise UsageError(f"--head {name!r}: the run has no such head{nearest(name, known)}")
    rows = run.of("heads")
    texts: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for (model, strategy, prompt), own in table.groupby(["model", "strategy", "prompt"], sort=False):
        tokens = own["tokens"].iloc[0]
        columns = np.unique(tokens[1:], return_inverse=True)[1]
        about = {head.name: head for head in heads_of(rows, str(model), str(strategy))}
        wanted = list(dict.fromkeys(heads or notable(list(about.values()))))[: None if heads else MOST_HEADS]
        if not about and not heads and str(model) not in {text["model"] for text in texts}:
            wanted = list(dict.fromkeys(own["name"]))[:MOST_UNNAMED]  # no table chooses: maps of heads lead here
        if not wanted:
            continue
        for name in wanted:
            of_head = own[own["name"] == name]
            if of_head.empty:
                continue
            window = of_head["window"].iloc[0]
            shown.append(
                {
                    "text": len(texts),
                    "name": name,
                    "kind": about[name].kind if name in about else None,
                    "best": about[name].best if name in about else None,
                    "window": None if pd.isna(window) else int(window),
                    "sources": {
                        str(source): base64.b64encode(mass).decode()
                        for source, mass in zip(of_head["source"], of_head["mass"], strict=True)
                    },
                }
            )
        texts.append(
            {
                "model": str(model),
                "strategy": str(strategy),
                "prompt": str(prompt),
                "pieces": _pieces(run, str(model), str(prompt), tokens),
                "columns": columns.tolist(),
            }
        )
    return {"texts": texts, "heads": shown}


def write_page(run: Run, path: Path, heads: Sequence[str] = ()) -> None:
    """Write the page as one file that needs no network.

    Raises:
        UsageError: a run without kept attention, an unknown head, or a file that cannot be written.
    """
    from harness.report.document import render, safe_json, write_page_file

    def page() -> str:
        data = page_data(run, heads)
        if data is None:
            what = f"{run.path}: no attention was kept there; `ccmc run` keeps it with the units of heads"
            raise UsageError(what + unfinished(run))
        return render("attention.html.j2", title=run.path.name, about=ABOUT, attention=safe_json(data))

    write_page_file(path, page)
