"""Tables of self-reinforcement."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pandas as pd

from harness.core.records import Cell, Column, Table
from harness.core.rows import MODEL
from harness.experiments._shared.leading import Leading, counted
from harness.experiments.self_reinforcement.parts import (
    LOG_P,
    SLOPE,
    WINS,
    P,
    Part,
    closed,
    ordered_positions,
    parts,
)
from harness.experiments.self_reinforcement.theory import about

HEADLINE_ROWS = 12
INTERVALS = "Intervals: 95 %, over groups of prompts."
TERMS = (
    "k: how often the sentence is in the context; per doubling: least-squares slope of the mean probability on log2 k "
    "from k = 1 on"
)
WON = "winning rate: share of tokens that are more likely than in the first repetition (Xu et al. 2022)"


def tables(rows: pd.DataFrame) -> list[Table]:
    """All tables of the experiment, the headline first.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    if not found:
        return []
    made = [_model(found), _theory(found), _arms(found), _positions(found), _curves(found)]
    return [table for table in made if table.rows]


def _leading(found: list[Part]) -> Leading:
    return Leading(("model",), [(part.model,) for part in found])


def _prompts(found: list[Part]) -> str:
    sentences = counted([part.length for part in found], "token")
    return f"{counted([part.prompts() for part in found], 'held-out prompt')}, a sentence of {sentences} each"


def _model(found: list[Part]) -> Table:
    lead, body = _leading(found), []
    for part in found:
        for kind in part.kinds:
            for preamble in part.preambles[:1]:
                body.append(
                    [
                        *lead.cells((part.model,)), kind, part.mean(P, MODEL, kind, preamble, 0).value,
                        part.mean(P, MODEL, kind, preamble, 1), part.mean(P, MODEL, kind, preamble, part.last),
                        part.mean(SLOPE, MODEL, kind, preamble),
                    ]
                )  # fmt: skip
    last = max(part.last for part in found)
    least = found[0].preambles[0]
    return Table(
        "self-reinforcement.model",
        f"How likely is a repeated sentence to {lead.same}?",
        [
            *lead.columns,
            Column("sentence", left=True),
            Column("k = 0", priority=1),
            Column("k = 1"),
            Column(f"k = {last}"),
            Column("per doubling", signed=True),
        ],
        body[:HEADLINE_ROWS],
        f"Mean probability of its tokens, {_before(least)}. {TERMS}; the interval of k = 0 is in "
        f"self-reinforcement.curves. {_prompts(found)}. {INTERVALS}",
        headline=True,
    )


def _before(preamble: int) -> str:
    return f"after a preamble of {preamble} tokens" if preamble else "without a preamble"


def _theory(found: list[Part]) -> Table:
    """The test of closed chains."""
    lead, body = _leading(found), []
    for part in found:
        for one in part.tested:
            said: list[Cell] = [
                one.kind,
                one.first.interval,
                one.first.word,
                one.whole,
                one.bound,
                one.word,
                one.verdict,
            ]
            body.append([*lead.cells((part.model,)), *said])
    part = found[0]
    margins = ", ".join(f"{margin:g}" for margin in sorted({one.margin for one in found}))
    return Table(
        "self-reinforcement.theory",
        f"Could a closed chain have the curve of {lead.same}?",
        [
            *lead.columns,
            Column("sentence", left=True),
            Column("first token", signed=True),
            Column("is it 0?", left=True, priority=2),
            Column("all tokens", "nats", signed=True),
            Column("at most", priority=1),
            Column("within?", left=True, priority=3),
            Column("verdict", left=True),
        ],
        body,
        f"Slopes per doubling of k without a preamble: of the probability of a repetition's first token, and of the "
        f"log-probability of all tokens. {about(part.last, part.length)} is it 0: differs, agrees (within {margins}, "
        "two one-sided tests) or undecided, which is the verdict; within: the same against the bound. Each corrected "
        "by Holm for the number of kinds. "
        f"{_prompts(found)}. {INTERVALS}",
    )


def _arms(found: list[Part]) -> Table:
    lead, body = _leading(found), []
    for part, kind, preamble, arm in _every_curve(found):
        own = arm == MODEL
        body.append(
            [
                *lead.cells((part.model,)), kind, preamble, arm, part.mean(P, arm, kind, preamble, 1),
                part.mean(P, arm, kind, preamble, part.last), part.mean(SLOPE, arm, kind, preamble),
                None if own else part.against_model(SLOPE, arm, kind, preamble),
                None if own else part.mean_distance(arm, kind, preamble),
                part.mean(WINS, arm, kind, preamble, part.last),
            ]
        )  # fmt: skip
    return Table(
        "self-reinforcement.arms",
        f"Which surrogate has the curve of {lead.same}?",
        [
            *lead.columns,
            Column("sentence", left=True),
            Column("preamble"),
            Column("arm", left=True),
            Column("k = 1", priority=3),
            Column(f"k = {max(part.last for part in found)}", priority=2),
            Column("per doubling", signed=True),
            Column("less the model", signed=True),
            Column("distance"),
            Column("winning rate", priority=4),
        ],
        body,
        f"{TERMS}; less the model: on the same sentences; distance: mean over k >= 1 of the absolute difference of the "
        f"curves of a sentence; {WON}. {_closed(found)}{_prompts(found)}. {INTERVALS}",
    )


def _every_curve(found: list[Part]) -> Iterator[tuple[Part, str, int, str]]:
    """Part, kind of sentence, preamble and arm of all that were measured."""
    for part in found:
        for kind, preamble, arm in product(part.kinds, part.preambles, part.arms):
            if part.measured(arm, kind, preamble):
                yield part, kind, preamble, arm


def _closed(found: list[Part]) -> str:
    names = [arm for arm in found[0].arms if closed(arm)]
    if not names:
        return ""
    return f"Closed chains, which no doubling of counts moves: {', '.join(names)}. "


def _positions(found: list[Part]) -> Table:
    lead, body = _leading(found), []
    for part, kind, preamble, arm in _every_curve(found):
        for position in ordered_positions(part):
            body.append(
                [
                    *lead.cells((part.model,)), kind, preamble, arm, position,
                    *(part.mean(P, arm, kind, preamble, k, position) for k in (0, 1, part.last)),
                    part.mean(SLOPE, arm, kind, preamble, position=position),
                ]
            )  # fmt: skip
    return Table(
        "self-reinforcement.positions",
        f"Where in the sentence does the probability rise? {lead.same}",
        [
            *lead.columns,
            Column("sentence", left=True),
            Column("preamble"),
            Column("arm", left=True),
            Column("position", left=True),
            Column("k = 0"),
            Column("k = 1"),
            Column(f"k = {max(part.last for part in found)}"),
            Column("per doubling", signed=True),
        ],
        body,
        f"position: the first token of the sentence, and the others in three parts. {TERMS}. {_prompts(found)}. "
        f"{INTERVALS}",
    )


def _curves(found: list[Part]) -> Table:
    lead, body = _leading(found), []
    for part, kind, preamble, arm in _every_curve(found):
        for k in range(part.last + 1):
            body.append(
                [
                    *lead.cells((part.model,)), kind, preamble, arm, k,
                    *(part.mean(metric, arm, kind, preamble, k) for metric in (P, LOG_P, WINS)),
                ]
            )  # fmt: skip
    return Table(
        "self-reinforcement.curves",
        f"The curves of {lead.same} and of its surrogates",
        [
            *lead.columns,
            Column("sentence", left=True),
            Column("preamble"),
            Column("arm", left=True),
            Column("k"),
            Column("probability"),
            Column("log-probability", "nats"),
            Column("winning rate"),
        ],
        body,
        f"{_prompts(found)}. log-probability: over sentences none of whose tokens was ruled out. {WON}. {INTERVALS}",
    )
