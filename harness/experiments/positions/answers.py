"""What `positions` answers: what do positions change in predictions and in winners?"""

from __future__ import annotations

import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Answer
from harness.experiments._shared.claims_words import (
    answer,
    comparisons,
    furthest,
    picked,
    verdict_answer,
)
from harness.experiments.positions.tables import LABELS

PREDICTS = "Is a model with positions its position-aware chain, and what does a chain without them miss?"
WINS = "Does one token win where memory fades?"


def answers(rows: pd.DataFrame) -> list[Answer]:
    """Equality and risk with positions, what is left with a fading memory, and the verdicts.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    if not found:
        return [answer(PREDICTS, [], [])]
    exact, left = picked(found, "equivalence_error"), picked(found, "one_left")
    said = []
    if exact:
        worst = furthest(exact)
        said.append(
            "Theory: the model is the chain whose scores depend on positions; their probabilities differ by at most "
            f"{number(worst.found.value)} (bound {number(worst.bound)})."
        )
    kinds = dict.fromkeys(str(one.factors["positions"]) for one in picked(found, "excess_risk"))
    for kind in kinds:
        pair = [picked(found, "excess_risk", surrogate=name, positions=kind) for name in ("ccmc-fit", "pccmc-weights")]
        if all(one and one[0].found.value is not None for one in pair):
            blind, aware = (interval(one[0].found) for one in pair)
            said.append(f"Excess risk with {kind} positions: {blind} nats for a chain without them, {aware} with them.")
    fading = [one for one in left if one.verdict is not None]
    ended = []
    if fading:
        each = ", ".join(f"{interval(one.found)} at rate {one.factors['rate']:g}" for one in fading)
        ended.append(
            "Theory: with a memory that fades by exp(-rate) per token, one token is left in the end. Share of paths "
            f"where it is, after {fading[0].factors['T']:,} tokens: {each}."
        )
    made = [answer(PREDICTS, said, [furthest(exact)] if exact else found)] if said else []
    made += [answer(WINS, ended, [furthest(fading), *fading])] if fading else []
    return [*made, verdict_answer(found, LABELS)]
