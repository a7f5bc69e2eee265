"""What `trajectory` answers: who wins on one long path, and what does the path teach of P?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import pandas as pd

from harness.core.format import number
from harness.core.records import Answer
from harness.experiments._shared.claims_words import (
    Comparison,
    against,
    answer,
    comparisons,
    furthest,
    picked,
    verdict_answer,
)
from harness.experiments.trajectory.tables import LABELS

WINS = "Who wins on one long path, and how fast do the others fade?"
TEACHES = "What does one long path teach of P?"


def answers(rows: pd.DataFrame) -> list[Answer]:
    """Winners and losers' exponents, the rate at which log P is learned, and the verdicts.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    if not found:
        return [answer(WINS, [], [])]
    return [*_wins(found), *_teaches(found), verdict_answer(found, LABELS)]


def _wins(found: Sequence[Comparison]) -> list[Answer]:
    """Exponents of losers, and who leads."""
    led, losers = picked(found, "won"), picked(found, "loser_exponent")
    said, behind = [], []
    if losers:
        worst = furthest(losers)
        behind.append(worst)
        said.append(
            "Theory: a loser's frequency falls like t^-(2a - 1)/a, a = P[0, 0]. Its exponent over the last decade is "
            f"{against(worst)}, at a = {worst.factors['a']:g}, the furthest of {len(losers)} from its prediction."
        )
    if led:
        worst = furthest(led)
        behind.append(worst)
        said.append(f"Of paths with one stable token, the share that it leads is {against(worst)}.")
    return [answer(WINS, said, behind)] if said else []


def _teaches(found: Sequence[Comparison]) -> list[Answer]:
    """The rate at which log P is learned, and the growth of pairs behind it."""
    rates = picked(found, "error_rate")
    pairs = [one for one in picked(found, "pair_growth") if one.verdict is not None]
    said, behind = [], []
    if rates:
        worst = furthest(rates)
        behind.append(worst)
        said.append(
            "Theory: the error of log P falls in T with the log-log slope -max(0, rho_i + rho_j - 1)/2. It is "
            f"{against(worst)}, at p = {worst.factors['p']:g}, the furthest of {len(rates)}."
        )
    gaps = [
        abs(one.found.value - one.predicted)
        for one in pairs
        if one.found.value is not None and one.predicted is not None
    ]
    if gaps:
        behind += pairs
        said.append(
            f"Counts of pairs grow with exponents within {number(max(gaps))} of rho_i + rho_j - 1, median difference "
            f"{number(median(gaps))} ({sum(one.wrong for one in pairs)} of {len(pairs)} intervals leave it out)."
        )
    return [answer(TEACHES, said, behind)] if said else []
