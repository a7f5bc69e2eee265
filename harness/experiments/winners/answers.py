"""What `winners` answers: does the mean field know which tokens win?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.core.format import interval
from harness.core.records import Answer
from harness.experiments._shared.claims_words import (
    Comparison,
    against,
    answer,
    comparisons,
    furthest,
    needs_repetitions,
    picked,
    place,
    verdict_answer,
)
from harness.experiments.winners.tables import LABELS

QUESTION = "Does the mean field know which tokens win?"
SETTLED = 1000
"""Tokens after which early chance decides little."""
ODDS = "Are the odds of the likeliest winner set right?"


def answers(rows: pd.DataFrame) -> list[Answer]:
    """The mean field against a second simulation, the odds of winner sets, and the verdicts.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    if not found:
        return [answer(QUESTION, [], [])]
    made = []
    gaps = picked(found, "l1_over_ceiling")
    if gaps:
        made.append(_mean_field(found, gaps))
    odds = picked(found, "odds_gap")
    if odds:
        worst = furthest(odds)
        said = [
            "The share of paths that reach the likeliest set, less its predicted odds, is "
            f"{against(worst)}, where it is furthest from it ({place(worst.factors)})."
        ]
        made.append(answer(ODDS, said, [worst, *odds]))
    return [*made, verdict_answer(found, LABELS)]


def _prominence(one: Comparison) -> tuple[bool, bool, int, int]:
    """Largest for the setting that is shown: Gaussian logits, the first start from 1,000 tokens on, most tokens."""
    start = int(one.factors["t0"])
    return one.factors["family"] == "gaussian", start >= SETTLED, -abs(start - SETTLED), int(one.factors["K"])


def _mean_field(found: Sequence[Comparison], gaps: Sequence[Comparison]) -> Answer:
    """How the mean field's distance from a path compares with that of a second simulation from the same state."""
    known = [one for one in gaps if one.found.low is not None and one.found.high is not None]
    nearer = sum(one.found.high < 0 for one in known if one.found.high is not None)
    further = sum(one.found.low > 0 for one in known if one.found.low is not None)
    shown = max(gaps, key=_prominence)
    overlap = {metric: picked(found, metric, **shown.factors) for metric in ("jaccard", "jaccard_ceiling")}
    said = []
    if known:
        said.append(
            "The mean field is as good as chance allows where its L1 distance from the path at T is no larger than a "
            f"second simulation's: smaller in {nearer}, larger in {further} of {len(known)} settings (95 % intervals)."
        )
    else:
        said.append(f"Not answered: {needs_repetitions(max(one.found.n for one in gaps))}.")
    if all(overlap.values()):
        field, second = (interval(overlap[metric][0].found) for metric in ("jaccard", "jaccard_ceiling"))
        said.append(
            f"From t0 = {shown.factors['t0']:,} ({shown.factors['family']}, K = {shown.factors['K']}), its winner set "
            f"overlaps the path's by {field}, a second simulation's by {second} (Jaccard)."
        )
    return Answer(QUESTION, " ".join(said), shown.found, bool(known))
