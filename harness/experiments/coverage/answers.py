"""What `coverage` answers: which prompts determine the chain?"""

from __future__ import annotations

import pandas as pd

from harness.core.format import number
from harness.core.records import Answer
from harness.experiments._shared.claims_words import (
    against,
    answer,
    comparisons,
    counted,
    furthest,
    picked,
    verdict_answer,
)
from harness.experiments.coverage.tables import LABELS

QUESTION = "Which prompts determine the chain?"


def answers(rows: pd.DataFrame) -> list[Answer]:
    """Free directions against the co-occurrence graph, risk of what is determined, and the verdicts.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    if not found:
        return [answer(QUESTION, [], [])]
    sizes, gaps, risks = (picked(found, metric) for metric in ("free_directions", "nullity_gap", "excess_risk_ratio"))
    said, behind = [], []
    if gaps:
        worst = max(gaps, key=lambda one: one.found.value or 0.0)
        said.append(
            "Theory: each spare component of the co-occurrence graphs leaves one direction of the logits free. The "
            f"null space of the Hessian differs from that by at most {number(worst.found.value)}, in "
            f"{counted(worst.found.n, 'sample')} of a design."
        )
    if sizes:
        each = ", ".join(f"{number(one.found.value)} ({one.factors['design']})" for one in sizes)
        said.append(f"Free directions by design, means at n = {sizes[0].factors['n']:,}: {each}.")
    if risks:
        worst = furthest(risks)
        behind = [worst, *risks]
        said.append(
            "Theory: the determined directions cost their number / (2n) nats. The excess risk over that is "
            f"{against(worst)}, in the design furthest from it ({worst.factors['design']})."
        )
    return [answer(QUESTION, said, behind or gaps or sizes), verdict_answer(found, LABELS)]
