"""The chain of a head as a file that `ccmc` loads, and its transition rows in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccmc import CCMC, AttentionCCMC
from harness.core.errors import UsageError
from harness.core.records import Cell, Column, Table
from harness.experiments.heads.refit import FloatArray, HeadFit
from harness.runs.writing import write_atomic

NOTE = (
    "P[query, key]: the share that a key would get in a context that holds every token of the run's texts once. Lift: "
    "how many times as much as an even share."
)
LARGEST = 4096  # tokens of a dense chain: K x K numbers, 134 MB


def as_attention(fit: HeadFit) -> AttentionCCMC:
    """The chain as keys and queries, for a surrogate read off the weights of a head without a soft cap.

    Raises:
        UsageError: a chain that is no product of keys and queries.
    """
    from harness.surrogates._fitting.head_chains import head_chains
    from harness.surrogates.heads.ccmc_weights import CCMCWeights

    if not isinstance(fit.fitted, CCMCWeights):
        raise UsageError(
            f"head {fit.layer}.{fit.head}: {fit.surrogate} over {len(fit.ids)} tokens would be a file of "
            f"{8e-6 * len(fit.ids) ** 2:,.0f} MB; keep the most frequent with --tokens {LARGEST}, or use --surrogate "
            "ccmc-weights"
        )
    chain = head_chains({fit.layer: fit.fitted.heads})[fit.head]
    if chain.softcap is not None:
        raise UsageError(
            f"head {fit.layer}.{fit.head} caps its scores, so that they are no products; keep the most frequent tokens "
            f"with --tokens {LARGEST}"
        )
    size = len(fit.ids)  # the first position may follow the tokens
    return AttentionCCMC(chain.key[:size], chain.query[:size])


def export(fit: HeadFit, path: Path, tokens: int | None = None) -> tuple[str, Path]:
    """Write the chain of a head, and beside it the tokens of its rows and columns.

    Args:
        fit: the head.
        path: the safetensors file; the vocabulary goes to the same name with `.tokens.json`.
        tokens: keep only so many, the most frequent in the training texts.

    Returns:
        The class of `ccmc` that loads the file, and the path of the vocabulary.

    Raises:
        UsageError: a chain too large to be written out, or a place that cannot be written to.
    """
    kept = np.arange(len(fit.ids))
    if tokens is not None and tokens < len(kept):
        kept = np.sort(np.argsort(-fit.counts, kind="stable")[:tokens])
    chain: CCMC | AttentionCCMC
    chain = CCMC(fit.all_logits(kept)) if len(kept) <= LARGEST else as_attention(fit)
    kind = type(chain).__name__
    beside = path.with_name(f"{path.name.removesuffix('.safetensors')}.tokens.json")
    about = {
        "model": fit.model,
        "layer": fit.layer,
        "head": fit.head,
        "surrogate": fit.surrogate,
        "load_with": f"ccmc.{kind}.load",
        "tokens": [{"id": int(fit.ids[k]), "text": fit.pieces[k], "count": int(fit.counts[k])} for k in kept],
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        chain.save(path)
        write_atomic(beside, (json.dumps(about, ensure_ascii=False, indent=1) + "\n").encode())
    except OSError as error:
        raise UsageError(f"--output {path}: cannot be written: {error.strerror}") from None
    return kind, beside


def escaped(piece: str) -> str:
    """A token as it may be shown anywhere: in quotes, blanks visible, control characters as escapes."""
    return json.dumps(piece, ensure_ascii=False) if piece.isprintable() else ascii(piece)


def find_query(fit: HeadFit, text: str) -> int:
    """The local id of a token given by its text.

    Raises:
        UsageError: no token of the run's texts is exactly that; names the nearest.
    """
    places = [index for index, piece in enumerate(fit.pieces) if piece == text]
    if not places:
        hint = _near(text, fit.pieces)
        if not hint and len(fit.pieces) <= 40:
            hint = f"; known: {', '.join(map(escaped, fit.pieces))}"
        raise UsageError(f"--query {text!r}: not a token of the run's texts (a blank before a word counts){hint}")
    return max(places, key=lambda index: fit.counts[index])


def _near(text: str, pieces: Sequence[str]) -> str:
    same = [piece for piece in pieces if piece.strip().lower() == text.strip().lower()]
    from difflib import get_close_matches

    close = same or get_close_matches(text, pieces, n=3, cutoff=0.6)
    return f"; did you mean {', '.join(repr(piece) for piece in close[:3])}?" if close else ""


def transition_rows(fit: HeadFit, queries: Sequence[str], top: int) -> list[Table]:
    """The base transition rows of a head in words.

    Args:
        fit: the head.
        queries: texts of tokens; the ten most frequent ones by default.
        top: keys per query.

    Returns:
        One table for each query that is named, or one for all of the most frequent.
    """
    what = f"head {fit.layer}.{fit.head} of {fit.model}, {fit.surrogate}"
    if queries:
        return [_one_query(fit, find_query(fit, text), top, what) for text in queries]
    body: list[list[Cell]] = []
    for query in np.argsort(-fit.counts, kind="stable")[:10].tolist():
        body += [[escaped(fit.pieces[query]), int(fit.counts[query]), *cells] for cells in _top_keys(fit, query, top)]
    columns = [Column("query", left=True), Column("count of the query", priority=2), *_columns(fit)]
    return [Table("heads.top-keys", f"Top keys of the most frequent queries: {what}", columns, body, NOTE)]


def _columns(fit: HeadFit) -> list[Column]:
    """What `_top_keys` gives."""
    columns = [
        Column("key", left=True),
        Column("P[query, key]"),
        Column("lift"),
        Column("count of the key", priority=1),
    ]
    return (
        columns if getattr(fit.fitted, "delta_", None) is None else [*columns, Column("seen in training", priority=1)]
    )


def _top_keys(fit: HeadFit, query: int, top: int) -> list[list[Cell]]:
    """The keys that a query gives most to, with their shares; of a fit also whether training texts had the pair."""
    logits = fit.logits(np.array([query]), np.arange(len(fit.ids)))[0]
    weight = np.exp(logits - logits.max())
    row: FloatArray = weight / weight.sum()
    deltas: Any = getattr(fit.fitted, "delta_", None)
    seen: set[int] = set()
    if deltas is not None:
        table = deltas[fit.head]
        seen = set(table.indices[table.indptr[query] : table.indptr[query + 1]].tolist())
    made: list[list[Cell]] = []
    for key in np.argsort(-row, kind="stable")[:top].tolist():
        cells: list[Cell] = [
            escaped(fit.pieces[key]),
            float(row[key]),
            float(row[key] * len(row)),
            int(fit.counts[key]),
        ]
        made.append(cells if deltas is None else [*cells, "yes" if key in seen else "no"])
    return made


def _one_query(fit: HeadFit, query: int, top: int, what: str) -> Table:
    title = f"Top keys of the query {escaped(fit.pieces[query])}: {what}"
    return Table("heads.top-keys", title, _columns(fit), _top_keys(fit, query, top), NOTE)
