"""The units of the model's curves with heads replaced: one arm, all sets of heads of one order.

The heads are those whose rows a surrogate is closest to on training texts that no fit reads, layer 0 left out: there
surrogates read off the weights are exact. The first position gets what that surrogate says of it in all arms.
"""

from __future__ import annotations

import pandas as pd

from harness.experiments._shared.head_sets import make_sets
from harness.experiments._shared.loop_arms import read_arm, read_heads
from harness.experiments._shared.loop_rules import LEADER
from harness.experiments.self_reinforcement.curves import add_curve
from harness.experiments.self_reinforcement.model_curves import log_along, rows_of
from harness.experiments.self_reinforcement.sentences import repeated_texts
from harness.runs.units import Work


def measure(work: Work) -> pd.DataFrame:
    """Do one arm."""
    from harness.models import loading

    s = work.settings
    work.progress(0.0, "loading the model")
    model, rows = loading.model_of(work.local), rows_of(work, surrogate=s["arm"])
    arm = read_arm(model, work.inputs, s["arm"], s["longest"], s["order"])
    sets = make_sets(read_heads(work.inputs), s["order"], ["share"], {"shares": s["shares"], "layer_0": [False]})
    texts = [text for text in repeated_texts(work) if text.missing is None]
    for number, text in enumerate(texts):
        work.progress(number / len(texts), f"{s['arm']} in the loop, text {number + 1} of {len(texts)}")
        for one in sets:
            with arm.replacing(one.heads, LEADER):
                found = log_along(model, text)
            condition = {name: one.condition[name] for name in ("order", "share", "heads")}
            add_curve(rows, text, found, condition=condition)
    return rows.frame()
