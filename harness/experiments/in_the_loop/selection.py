"""Greedy forward selection on choosing texts: in each step the heads that cost least on top of those taken so far."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from harness.attention.capture import IntArray
from harness.core.rows import Rows
from harness.experiments._shared.head_sets import Head, ordered
from harness.experiments._shared.loop_arms import Arm, read_arm, read_heads
from harness.experiments._shared.loop_fits import choosing_texts
from harness.experiments.in_the_loop.losses import Predicted, first_of_each
from harness.runs.units import Work


def select(work: Work) -> pd.DataFrame:
    """Do the selection of one surrogate, without layer 0 and with it; leaves `selected.json`."""
    from harness.models import loading

    s = work.settings
    model = loading.model_of(work.local)
    arm = read_arm(model, work.inputs, s["order"], s["longest"])
    texts = [ids for _, ids in first_of_each(choosing_texts(work), s["greedy"]["texts"])]
    rows = Rows(
        experiment="in-the-loop", model=s["model"], revision=s["revision"], surrogate=s["order"], split="train"
    )  # of the steps
    found: dict[str, list[Head]] = {}
    for inside in (False, True):
        side = "in" if inside else "out"
        heads = [one for one in read_heads(work.inputs) if inside or one["layer"] > 0]
        order = ordered(heads, s["order"])
        found[side] = []
        for taken, lost in forward(arm, texts, order, s["greedy"], s["first_position"]):
            work.progress(0.5 * inside + 0.5 * len(taken) / s["greedy"]["heads"], f"{len(taken)} heads are selected")
            where = {
                "order": s["order"], "set": "greedy", "heads": len(taken), "layer_0": side,
                "first_position": s["first_position"],
            }  # fmt: skip
            rows.add("nats_lost", lost, condition=where, n=len(texts))
            found[side] = taken
    (work.folder / "selected.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    return rows.frame()


def forward(
    arm: Arm, texts: Sequence[IntArray], order: Sequence[Head], greedy: dict[str, int], rule: str
) -> list[tuple[list[Head], float]]:
    """The heads taken after each step, and the nats lost with them.

    Args:
        arm: takes the place of heads.
        texts: on which the loss is measured.
        order: the heads, those to be tried first in front.
        greedy: heads, candidates and step of the settings.
        rule: for the first position.
    """
    base = [Predicted.along(arm.model, ids) for ids in texts]
    taken: list[Head] = []
    steps = []
    while len(taken) < min(greedy["heads"], len(order)):
        free = [head for head in order if head not in taken][: greedy["candidates"]]
        lost = {head: _lost(arm, texts, base, [*taken, head], rule) for head in free}
        best = sorted(free, key=lambda head: lost[head])
        taken = [*taken, *best[: min(greedy["step"], greedy["heads"] - len(taken))]]
        steps.append((taken, _lost(arm, texts, base, taken, rule)))
    return steps


def _lost(arm: Arm, texts: Sequence[IntArray], base: Sequence[Predicted], heads: Sequence[Head], rule: str) -> float:
    """Mean nats per token lost over all texts."""
    total, count = 0.0, 0
    with arm.replacing(heads, rule):
        for ids, own in zip(texts, base, strict=True):
            found = Predicted.along(arm.model, ids)
            total += float((found.loss - own.loss).double().sum())
            count += len(found.loss)
    return total / count
