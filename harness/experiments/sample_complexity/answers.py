"""What `sample-complexity` answers: how fast do observations teach the chain?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Answer
from harness.experiments._shared.claims_words import (
    Comparison,
    answer,
    comparisons,
    furthest,
    picked,
    verdict_answer,
)
from harness.experiments.sample_complexity.tables import LABELS

QUESTION = "How fast do observations teach the chain?"
SLOPES = {"slope_in_n": "in n", "slope_in_K": "in sqrt(K(K-1))", "slope_in_K_logits": "in K, of the logits' error"}


def answers(rows: pd.DataFrame) -> list[Answer]:
    """Slopes and level of the excess risk, and the verdicts.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    if not found:
        return [answer(QUESTION, [], [])]
    normal = [one for one in found if one.factors.get("family") == "gaussian"] or found
    said = ["Theory: the excess risk is K(K-1)/(2n), and the squared error of the logits about K^4/n."]
    behind: list[Comparison] = []
    slopes = {metric: picked(normal, metric) for metric in SLOPES}
    kept = {metric: furthest(every) for metric, every in slopes.items() if every}
    behind += kept.values()
    if kept:
        each = "; ".join(
            f"{SLOPES[m]} {interval(one.found)}, not {number(one.predicted)}"
            if one.wrong
            else f"{SLOPES[m]} {interval(one.found)} ({number(one.predicted)} predicted)"
            for m, one in kept.items()
        )
        said.append(f"Log-log slopes, Gaussian teachers: {each}.")
    ratios = picked(normal, "excess_risk_ratio", surrogate="ccmc-fit")
    if ratios:
        said.append(_level(ratios))
        behind += ratios
    return [answer(QUESTION, said, behind or found), verdict_answer(found, LABELS)]


def _level(ratios: Sequence[Comparison]) -> str:
    """How far the excess risk is from its prediction where it is furthest."""
    worst = furthest(ratios)
    where = f"K = {worst.factors['K']}, n = {worst.factors['n_observations']:,}"
    return (
        f"The excess risk of the fit is {interval(worst.found)} times the predicted one where it is furthest from it "
        f"({where}; {len(ratios)} pairs of K and n)."
    )
