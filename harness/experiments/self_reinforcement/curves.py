"""Rows of one text: how likely a sentence's tokens are in each of its repetitions, by place in the sentence."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.core.rows import Rows
from harness.data.texts import FloatArray, IntArray
from harness.experiments.self_reinforcement.sentences import Repeated
from harness.experiments.self_reinforcement.theory import slope_of

ALL, FIRST = "all", "first"
THIRDS = ("early", "middle", "late")
POSITIONS = (ALL, FIRST, *THIRDS)
FORBIDDEN = "infinite: tokens that came had probability 0"
NO_CONTEXT = "the first token of a text has no context"


def places(length: int) -> dict[str, IntArray]:
    """Places in a sentence, by name: all, the first, and the others in three parts; those that are not empty."""
    parts = np.array_split(np.arange(1, length), len(THIRDS))
    found = {ALL: np.arange(length), FIRST: np.arange(1), **dict(zip(THIRDS, parts, strict=True))}
    return {name: place for name, place in found.items() if len(place)}


def add_curve(rows: Rows, text: Repeated, log_p: FloatArray, **where: Any) -> None:
    """Add the rows of one text.

    Args:
        rows: get them.
        text: which.
        log_p: [K + 1, L] log-probability of each token; NaN where it has no context, -inf where it was ruled out.
        **where: more columns; `condition` holds further factors.
    """
    about = {"kind": text.kind, "preamble": text.preamble, **where.pop("condition", {})}
    shared = {"prompt": text.prompt, "group": text.group, "split": "held_out", **where}
    p = np.exp(log_p)
    for name, place in places(log_p.shape[1]).items():
        at = {**about, "position": name}
        means = []
        for k, row in enumerate(p[:, place]):
            known = row[np.isfinite(row)]
            means.append(float(known.mean()) if len(known) else np.nan)
            columns = {**shared, "condition": {**at, "k": k}, "n": len(known)}
            if len(known):
                rows.add("sentence_probability", means[-1], **columns)
            else:
                rows.add("sentence_probability", None, missing=NO_CONTEXT, **columns)
        n = len(place) * (len(p) - 1)
        rows.add("probability_slope", slope_of(np.array(means[1:])), condition=at, n=n, **shared)
        if name in {ALL, FIRST}:
            _add_log_slope(rows, log_p[1:, place], {**shared, "condition": at, "n": n})
    _add_logs_and_wins(rows, log_p, about, shared)


def _add_log_slope(rows: Rows, log_p: FloatArray, columns: dict[str, Any]) -> None:
    if np.isfinite(log_p).all():
        rows.add("log_probability_slope", slope_of(log_p.mean(axis=1)), **columns)
    else:
        rows.add("log_probability_slope", None, missing=FORBIDDEN, **columns)


def _add_logs_and_wins(rows: Rows, log_p: FloatArray, about: dict[str, Any], shared: dict[str, Any]) -> None:
    before = log_p[0]
    known = ~np.isnan(before)
    for k, row in enumerate(log_p):
        columns = {**shared, "condition": {**about, "position": ALL, "k": k}}
        kept = row[~np.isnan(row)]
        if np.isfinite(kept).all():
            rows.add("sentence_log_probability", float(kept.mean()), n=len(kept), **columns)
        else:
            rows.add("sentence_log_probability", None, missing=FORBIDDEN, n=len(kept), **columns)
        if k:
            rows.add("winning_rate", float((row[known] > before[known]).mean()), n=int(known.sum()), **columns)


def add_missing(rows: Rows, text: Repeated, **where: Any) -> None:
    """The row of a text that could not be made."""
    about = {"kind": text.kind, "preamble": text.preamble, **where.pop("condition", {}), "position": ALL}
    columns = {"prompt": text.prompt, "group": text.group, "split": "held_out", **where, "n": 0}
    rows.add("probability_slope", None, missing=text.missing, condition=about, **columns)
