"""Texts that people wrote, as heads read them: cut to the window, every document for itself.

No piece holds parts of two documents, so no context and no position goes over a boundary between them.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.config.texts import GivenTexts
from harness.core.errors import UsageError
from harness.core.hashing import canonical_hash
from harness.core.rows import Rows
from harness.data.splits import Prompt
from harness.data.tokenisation import Encoded
from harness.experiments._shared.continuations import Model, local
from harness.runs.units import Unit, Work
from harness.runs.writing import write_parquet

STRATEGY = "text"  # where rows name how a text was decoded: it was not


def cut(document: Encoded, length: int, settings: GivenTexts) -> list[list[int]]:
    """The pieces of one document, from its start on; each begins as every text of the model does.

    Args:
        document: its token ids.
        length: of the longest piece.
        settings: how many pieces, and of how many tokens at least.
    """
    return [piece for piece in document.windows(length)[: settings.windows] if len(piece) >= settings.min_tokens]


def given_unit(model: Model, documents: list[Prompt], settings: GivenTexts, max_length: int, device: str) -> Unit:
    """The unit that holds the pieces of documents as texts of a model.

    Args:
        model: whose tokenizer to use.
        documents: split into training and held-out ones.
        settings: how to cut them.
        max_length: of a piece; the model's own window may be shorter.
        device: on which the model will read them.

    Raises:
        UsageError: documents that leave nothing to fit or nothing to judge.
    """
    from harness.models import loading

    window = loading.context_window(loading.load_config(model.path))
    length = max_length if window is None else min(max_length, window)
    pieces = []
    for document in documents:
        encoded = model.encode(document.text, f"experiments.heads.texts: document {document.id!r}")
        for index, piece in enumerate(cut(encoded, length, settings)):
            pieces.append({"document": document.id, "split": document.split, "piece": index, "tokens": piece})
    model.report("documents")
    for part in ("train", "held_out"):
        if not any(piece["split"] == part for piece in pieces):
            raise UsageError(
                f"experiments.heads.texts: {settings.dataset!r}: none of {len(documents)} documents leaves a {part} "
                f"text of {settings.min_tokens} tokens for {model.name!r}; take more documents or lower min_tokens"
            )
    return texts_unit(model, pieces, f"{len(pieces)} texts of {settings.dataset}", length, device)


def texts_unit(model: Model, pieces: list[dict[str, Any]], label: str, max_length: int, device: str) -> Unit:
    """The unit that holds token ids of texts, which other units read and `verify` compares with their hash.

    Args:
        model: whose ids they are.
        pieces: mappings of document, split, piece (its number in the document) and tokens (ids).
        label: what they are, for progress bars.
        max_length: of a piece.
        device: on which the model will read them.
    """
    return Unit(
        "harness.experiments._shared.given_texts:keep_texts",
        f"{model.name}: {label}",
        {**model.settings(), "pieces": canonical_hash(pieces), "max_length": max_length},
        local={**local(model, device), "pieces": pieces},
    )


def keep_texts(work: Work) -> pd.DataFrame:
    """Do the unit: write the texts where units of heads read them."""
    s = work.settings
    shared: dict[str, Any] = {"experiment": "texts", "model": s["model"], "strategy": STRATEGY}
    rows, texts = Rows(**shared, revision=s["revision"], surrogate="model"), []
    for piece in work.local["pieces"]:
        where = {"split": piece["split"], "prompt": piece["document"], "seed": piece["piece"]}
        rows.add("length", len(piece["tokens"]), n=1, **where)
        texts.append(
            {
                **shared,
                **where,
                "source": "text",
                "kind": "text",
                "prompt_tokens": piece["tokens"],
                "continuation": [],
                "text": "",
            }
        )
    write_parquet(pd.DataFrame(texts), work.folder / "trajectories.parquet")
    return rows.frame()
