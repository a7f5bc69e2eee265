"""What `equivalence` answers: is a one-layer model the chain read off its weights?"""

from __future__ import annotations

import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Answer
from harness.experiments._shared.claims_words import answer, comparisons, counted, furthest, picked, verdict_answer
from harness.experiments.equivalence.tables import LABELS

QUESTION = "Is a one-layer attention model the chain read off its weights?"


def answers(rows: pd.DataFrame) -> list[Answer]:
    """The equality for d >= K, the mass lost below it, and the verdicts.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    if not found:
        return [answer(QUESTION, [], [])]
    exact, lost = picked(found, "equivalence_error_eps"), picked(found, "lost_mass")
    said = []
    if exact:
        worst = furthest(exact)
        exact = [worst, *exact]
        said.append(
            "For d >= K the theory makes both the same up to round-off: the largest error is "
            f"{number(worst.found.value)} units of eps cond(E); the bound of {number(worst.bound)} "
            f"{'holds' if worst.right else 'does not hold'}, in {counted(len(exact) - 1, 'setting')} of "
            f"{counted(worst.found.n, 'repetition')}."
        )
    random = [one for one in lost if one.factors.get("weights") == "random"] or lost
    if random:
        ends = [random[0], *random[-1:]] if len(random) > 1 else random
        each = " and ".join(f"{interval(one.found)} of the mass at d = {one.factors['d']}" for one in ends)
        said.append(
            f"For d < K = {random[0].factors['K']} a tied classifier does not exist; clipped to the context, the "
            f"output loses {each} ({random[0].factors['weights']} weights)."
        )
    return [answer(QUESTION, said, exact or lost), verdict_answer(found, LABELS)]
