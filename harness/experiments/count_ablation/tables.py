"""Tables of the count ablation: repetition and loss under every condition, and penalties at the same loss."""

from __future__ import annotations

import json

import pandas as pd

from harness.core.format import number
from harness.core.records import Cell, Column, Interval, Table
from harness.experiments._shared.leading import counted
from harness.experiments.count_ablation.conditions import (
    LOSSES,
    MEASURES,
    NONE,
    PROSE,
    REPETITION,
    Part,
    change,
    contrast,
    leading,
    less_penalty,
    name,
    parts,
    place_name,
)
from harness.stats.pooling import difference
from harness.stats.power import FINDABLE, smallest_difference

HEADLINE_ROWS = 12
CONTRASTS = (("first-half", "second-half"), ("best-heads", "random-heads"))
OF_REPETITION = f"{FINDABLE}, of seq_rep_4."
BOOTSTRAP = "Intervals: 95 %, bootstrap over prompts or texts."
COUNT = "count x s: s log(count of a token so far) is taken from the attention scores of its positions."
AT_EQUAL_LOSS = (
    "less penalty: seq_rep_4 less that of the repetition penalty which costs as much on prose, interpolated between "
    "the penalties that were measured; no value beyond them."
)


def tables(rows: pd.DataFrame) -> list[Table]:
    """All tables of the experiment, the headline first.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    return [_places(found), _conditions(found), _losses(found), _contrasts(found)] if found else []


def _prompts(found: list[Part]) -> str:
    return counted([len(part.sample(NONE, REPETITION).units) for part in found], "held-out prompt")


def _texts(found: list[Part]) -> str:
    return counted([part.sample(NONE, PROSE).rows for part in found], "text")


def cost(part: Part, condition: str, metric: str) -> Interval:
    """The change of a loss; no value where it is infinite in some texts, since a mean of the others would flatter.

    Args:
        part: one model.
        condition: what was done, as JSON.
        metric: one of the losses.
    """
    infinite = part.infinite(condition, metric)
    if infinite:
        return Interval(None, None, None, 0, f"infinite in {infinite} texts")
    return change(part, condition, metric).interval


def _places(found: list[Part]) -> Table:
    """What happens without the count, by part of the model; draws of random heads are averaged."""
    lead = leading(found)
    each = max(1, HEADLINE_ROWS // len(found))
    body: list[list[Cell]] = []
    smallest: list[float] = []
    for part in found[:HEADLINE_ROWS]:
        for place in part.places[:each]:
            own, loss = part.placed(place, REPETITION), part.placed(place, PROSE)
            repeats = difference(own, part.sample(NONE, REPETITION), REPETITION, paired=True).interval
            costs = difference(loss, part.sample(NONE, PROSE), PROSE, paired=True).interval
            less = less_penalty(part, own, costs.value).interval
            least = smallest_difference(repeats)
            smallest += [] if least is None else [least]
            body.append([*lead.cells((part.model,)), place_name(place), repeats, costs, less])
    before = [(part.model, part.sample(NONE, REPETITION).value) for part in found]
    found_at_best = f"A change of {number(min(smallest))} had 80 % power to be found at best. " if smallest else ""
    base = ", ".join(number(value) if len(before) == 1 else f"{model} {number(value)}" for model, value in before)
    return Table(
        "count-ablation.places",
        f"What happens to the repetition of {lead.same} without the count?",
        [
            *lead.columns,
            Column("without it", left=True),
            Column("seq_rep_4", "change", signed=True),
            Column("loss on prose", "change, nats", signed=True, priority=2),
            Column("less penalty", "seq_rep_4", signed=True, priority=1),
        ],
        body,
        f"{_prompts(found)} decoded greedily, {_texts(found)} of prose. log(count of a token so far) is taken from the "
        "attention scores of its positions, at the largest strength. Changes are against nothing done (seq_rep_4 "
        f"{base}) and paired; draws of random heads are averaged. {AT_EQUAL_LOSS} {found_at_best}{BOOTSTRAP}",
        headline=True,
    )


def _conditions(found: list[Part]) -> Table:
    lead = leading(found)
    body: list[list[Cell]] = []
    for part in found:
        for condition in part.conditions:
            own, *others = (part.interval(condition, metric) for metric in MEASURES)
            more: Interval | None = None
            less: Interval | None = None
            if condition != NONE:
                more = change(part, condition, REPETITION).interval
            if condition != NONE and "ablation" in json.loads(condition):
                loss = cost(part, condition, PROSE).value
                less = less_penalty(part, part.sample(condition, REPETITION), loss).interval
            least = None if more is None else smallest_difference(more)
            body.append([*lead.cells((part.model,)), name(condition), own, more, *others, less, least])
    return Table(
        "count-ablation.strengths",
        f"Does the count cause the repetition of {lead.same}? Every condition",
        [
            *lead.columns,
            Column("taken away", left=True),
            Column("seq_rep_4"),
            Column("change", "seq_rep_4", signed=True),
            Column("loop_share", priority=3),
            Column("winner_size", "tokens", priority=2),
            Column("less penalty", "seq_rep_4", signed=True, priority=1),
            Column("findable", priority=4),
        ],
        body,
        f"{_prompts(found)} decoded greedily. {COUNT} {AT_EQUAL_LOSS} Differences are paired by prompt. "
        f"{FINDABLE}, of the change. {BOOTSTRAP}",
    )


def _losses(found: list[Part]) -> Table:
    lead = leading(found)
    body: list[list[Cell]] = []
    for part in found:
        for condition in part.conditions:
            cells: list[Cell] = []
            for metric in LOSSES:
                infinite = part.infinite(condition, metric)
                mean = part.interval(condition, metric)
                hidden = Interval(None, None, None, 0, f"infinite in {infinite} texts")
                costs = None if condition == NONE else cost(part, condition, metric)
                least = None if costs is None else smallest_difference(costs)
                cells += [hidden if infinite else mean, costs, least, infinite]
            body.append([*lead.cells((part.model,)), name(condition), *cells])
    columns = [
        Column("prose", "nats", priority=3),
        Column("prose, change", "nats", signed=True),
        Column("prose, findable", "nats", priority=5),
        Column("prose, infinite", "texts", priority=4),
        Column("its text", "nats", priority=3),
        Column("its text, change", "nats", signed=True, priority=1),
        Column("its text, findable", "nats", priority=5),
        Column("its text, infinite", "texts", priority=4),
    ]
    return Table(
        "count-ablation.losses",
        f"What does it cost {lead.same}? Every condition",
        [*lead.columns, Column("taken away", left=True), *columns],
        body,
        f"Loss in nats per token: on {_texts(found)} of prose, and on the model's own continuations at temperature 1; "
        f"changes are paired by text. {FINDABLE}. infinite: texts in which a penalty forbids a written token; they "
        f"have no mean. {COUNT} {BOOTSTRAP}",
    )


def _contrasts(found: list[Part]) -> Table:
    """Does it matter where the count is taken away?"""
    lead = leading(found)
    body: list[list[Cell]] = []
    for part in found:
        for one, other in CONTRASTS:
            first, *rest = [contrast(part, one, other, metric).interval for metric in (*MEASURES, *LOSSES)]
            cells: list[Cell] = [first, smallest_difference(first), *rest]
            body.append([*lead.cells((part.model,)), place_name(one), place_name(other), *cells])
    return Table(
        "count-ablation.contrasts",
        f"Where does {lead.same} need the count? One part of it without, less another",
        [
            *lead.columns,
            Column("without it", left=True),
            Column("less", left=True),
            Column("seq_rep_4", signed=True),
            Column("findable", priority=5),
            Column("loop_share", signed=True, priority=3),
            Column("winner_size", "tokens", signed=True, priority=4),
            Column("loss on prose", "nats", signed=True, priority=1),
            Column("loss on its text", "nats", signed=True, priority=2),
        ],
        body,
        "Halves of the layers; as many heads whose chains predict the training texts best as random ones, whose draws "
        f"are averaged. Paired by prompt or text. {OF_REPETITION} {BOOTSTRAP}",
    )
