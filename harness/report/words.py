"""The headline answers of a run, in words, each with its figures and intervals."""

from __future__ import annotations

import json

import pandas as pd


def answers(rows: pd.DataFrame) -> list[str]:
    """What a run says, a sentence or two per question.

    Args:
        rows: of one run.

    Returns:
        Sentences, in the order of the experiments; empty where the run has none of the known ones.
    """
    return _verdicts(rows)


def _verdicts(rows: pd.DataFrame) -> list[str]:
    """What became of the claims of the paper's experiments."""
    said = []
    judged = rows[(rows["split"] == "pooled") & rows["verdict"].notna()]
    for kind, part in judged.groupby("experiment", sort=False):
        right = int(part["verdict"].isin(["agrees", "holds"]).sum())
        text = f"{kind}: {right} of {len(part)} comparisons with theory came out as predicted"
        wrong = part[part["verdict"].isin(["differs", "does not hold"])]
        claims = wrong["condition"].map(lambda condition: str(json.loads(condition)["claim"])).value_counts(sort=False)
        if len(claims):
            text += f"; {len(wrong)} did not: " + "; ".join(f"{name} ({count})" for name, count in claims.items())
        said.append(text + ".")
    return said
