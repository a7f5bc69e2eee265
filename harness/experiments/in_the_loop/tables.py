"""Tables of heads replaced while the model runs."""

from __future__ import annotations

import json

import pandas as pd

from harness.core.records import Cell, Column, Interval, Table
from harness.experiments._shared.leading import Leading, counted
from harness.experiments._shared.loop_rules import REAL
from harness.experiments.in_the_loop.parts import LOST, REPEATED, Part, SetOf, parts, smallest_margin
from harness.measures.head_kinds import SINK, THRESHOLD

HEADLINE_ROWS = 12
WORST = 12
INTERVALS = "Intervals: 95 %, over groups of prompts."
RECOVERED = (
    "recovered: 1 - nats lost with the surrogate / nats lost with the null in the same heads, the null that loses "
    "least on training texts; no value where what the null loses is not beyond chance."
)
RULE = {
    "leader": "In all arms the first position gets what the surrogate whose order makes the set says of it.",
    "levels": "In all arms the first position has the head's mean log odds on training texts.",
    REAL: "The first position is the running head's own.",
}
KINDS = (
    "Kinds by attention on training texts, the first position left out: previous-token, induction and duplicate-token "
    f"heads put at least {THRESHOLD:g} of it there (induction and duplicate-token: over queries with a candidate); "
    f"else sink heads have {SINK:g} on the first position; all else is other."
)


def tables(rows: pd.DataFrame) -> list[Table]:
    """All tables of the experiment, the headline first.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    if not found:
        return []
    made = [_lost(found), _arms(found), _alone(found), _kinds(found), _generation(found), _layers(found), _sets(found)]
    return [table for table in made if table.rows]


def _leading(found: list[Part]) -> Leading:
    return Leading(("model", "strategy"), [part.key for part in found])


def _prompts(found: list[Part]) -> str:
    numbers = [
        max((len(values) for (metric, _, _), values in part.held_out.items() if metric == LOST), default=0)
        for part in found
    ]
    return counted(numbers, "held-out prompt")


def _rule(found: list[Part]) -> str:
    used = {one.factors.get("first_position") for part in found for one in part.sets.values()} - {REAL}
    return " ".join(RULE[str(rule)] for rule in sorted(map(str, used)) if rule in RULE)


def _lost(found: list[Part]) -> Table:
    """The leader and the best null on the heads that the leader fits best, layer 0 left out."""
    lead = _leading(found)
    each = max(1, HEADLINE_ROWS // len(found))
    body: list[list[Cell]] = []
    for part in found[:HEADLINE_ROWS]:
        chosen = [one for leader in part.leaders for one in part.best(leader)]
        for one in _spread(chosen, each):
            null = part.null(one.condition)
            lost = None if null is None else part.mean(LOST, null, one.condition)
            body.append(
                [
                    *lead.cells(part.key), one.order, one.heads, part.mean(LOST, one.order, one.condition),
                    null, lost, part.recovered(one.condition),
                ]
            )  # fmt: skip
    return Table(
        "in-the-loop.lost",
        f"What does {lead.same} lose with chains in place of heads?",
        [
            *lead.columns,
            Column("chain", left=True, priority=2),
            Column("heads"),
            Column("nats lost"),
            Column("best null", left=True),
            Column("its nats", priority=1),
            Column("recovered"),
        ],
        body,
        f"Loss per token on {_prompts(found)}, prompt and continuation, less that of the unreplaced model. The heads "
        f"{_order(found)}, layer 0 (exact by construction) left out. {RECOVERED} {_rule(found)} {INTERVALS}",
        headline=True,
    )


def _order(found: list[Part]) -> str:
    alone = all(one.family == "alone" for part in found for order in part.leaders for one in part.best(order))
    return (
        "that change the next token least when replaced alone, on training texts that no fit reads"
        if alone
        else "whose rows it is closest to on training texts that no fit reads"
    )


def _spread(chosen: list[SetOf], most: int) -> list[SetOf]:
    """At most so many sets, evenly spread over their sizes."""
    if len(chosen) <= most:
        return chosen
    places = [round(k * (len(chosen) - 1) / max(1, most - 1)) for k in range(most)]
    return [chosen[place] for place in dict.fromkeys(places)]


def _arms(found: list[Part]) -> Table:
    lead = _leading(found)
    body: list[list[Cell]] = []
    for part in found:
        for one in part.sets.values():
            if one.family in {"kind", "layer"}:
                continue
            for arm in part.arms(one.condition):
                lost, _, kl, top = (part.mean(metric, arm, one.condition) for metric in _METRICS)
                body.append(
                    [
                        *lead.cells(part.key), one.order, one.name, one.heads, one.factors["layer_0"],
                        one.factors["first_position"], arm, lost, kl, top,
                    ]
                )  # fmt: skip
    return Table(
        "in-the-loop.arms",
        f"Every arm on every set of heads: {lead.same}",
        [
            *lead.columns,
            Column("order", left=True, priority=1),
            Column("set", left=True),
            Column("heads"),
            Column("layer 0", left=True, priority=2),
            Column("first", left=True, priority=3),
            Column("arm", left=True),
            Column("nats lost"),
            Column("KL", "nats", priority=4),
            Column("same top token", priority=5),
        ],
        body,
        f"{_prompts(found)}. order: the surrogate that orders the heads, on training texts that no fit reads: best by "
        "KL of their rows, least alone by KL of the next token when a head alone is replaced. "
        "layer 0: whether its heads, exact by construction for surrogates read off the weights, may be in the set. "
        f"first: the rule for the first position. {_rule(found)} real, a control: the first position as the running "
        f"head has it. {INTERVALS}",
    )


_METRICS = (LOST, "nats_lost_written", "next_token_kl", "same_top_token")


def _by_set(found: list[Part], family: str, name: str, title: str, what: str, caption: str) -> Table:
    lead = _leading(found)
    body: list[list[Cell]] = []
    for part in found:
        for leader in part.leaders:
            for without in (True, False):
                for one in part.chosen(leader, family, without):
                    if not without and part.layers.get(one.condition, {}).get(0) is None:
                        continue  # the same heads as without layer 0
                    null = part.null(one.condition)
                    lost = None if null is None else part.mean(LOST, null, one.condition)
                    own = part.mean(LOST, leader, one.condition)
                    said = [one.order, one.name, one.heads, one.factors["layer_0"], own, null, lost]
                    body.append([*lead.cells(part.key), *said, part.recovered(one.condition)])
    return Table(
        name,
        f"{title}: {lead.same}",
        [
            *lead.columns,
            Column("chain", left=True, priority=2),
            Column(what, left=True),
            Column("heads"),
            Column("layer 0", left=True, priority=1),
            Column("nats lost"),
            Column("best null", left=True),
            Column("its nats"),
            Column("recovered"),
        ],
        body,
        f"{caption} {_prompts(found)}. {RECOVERED} {INTERVALS}",
    )


def _alone(found: list[Part]) -> Table:
    """The heads that are chains least: those that change the next token most when they alone are replaced."""
    lead = _leading(found)
    body: list[list[Cell]] = []
    for part in found:
        heads = [(layer, head) for metric, layer, head in part.alone if metric == "kl_alone"]
        by_kl = {one: part.of_head("kl_alone", *one) for one in heads}
        worst = sorted(heads, key=lambda one: -(by_kl[one].value or 0.0))[:WORST]
        body += [
            [*lead.cells(part.key), layer, head, by_kl[layer, head], part.of_head("nats_lost_alone", layer, head)]
            for layer, head in worst
        ]
    return Table(
        "in-the-loop.alone",
        f"Which heads are chains least? {lead.same}",
        [*lead.columns, Column("layer"), Column("head"), Column("KL alone", "nats"), Column("nats lost", "nats")],
        body,
        f"The {WORST} heads that change the next token most when they alone are replaced; held-out prompts, 95 % "
        "intervals over groups of prompts, not corrected for the choice.",
    )


def _kinds(found: list[Part]) -> Table:
    return _by_set(
        found,
        "kind",
        "in-the-loop.kinds",
        "Which kinds of heads can be chains?",
        "kind",
        f"All heads of a kind. {KINDS}",
    )


def _layers(found: list[Part]) -> Table:
    return _by_set(
        found, "layer", "in-the-loop.layers", "Which layers can be chains?", "layer", "All heads of one layer."
    )


def _generation(found: list[Part]) -> Table:
    """Repetition of what is written with heads replaced, always beside the nats lost on texts."""
    lead = _leading(found)
    body: list[list[Cell]] = []
    for part in found:
        if part.margin is None:
            continue
        reseeded = part.reseeded()
        again: Interval | None = None if reseeded is None else reseeded.interval
        least = None if reseeded is None else smallest_margin(reseeded)
        word = None if reseeded is None else reseeded.word
        said = [part.of_model(REPEATED), again, word, least, None, part.of_model("winner_jaccard")]
        body.append([*lead.cells(part.key), "model, other seed", 0, *said])
        for arm, one in part.written:
            verdict = part.change(arm, one.condition)
            assert verdict is not None
            nats = part.mean(LOST, arm, one.condition)
            name = f"{arm}, {one.name}" + ("" if arm == one.order else f" of {one.order}")
            own = part.mean(REPEATED, arm, one.condition)
            jaccard = part.mean("winner_jaccard", arm, one.condition)
            said = [own, verdict.interval, verdict.word, smallest_margin(verdict), nats, jaccard]
            body.append([*lead.cells(part.key), name, one.heads, *said])
    margins = sorted({part.margin for part in found if part.margin is not None})
    return Table(
        "in-the-loop.generation",
        f"What does {lead.same} write with heads replaced?",
        [
            *lead.columns,
            Column("replaced by", left=True),
            Column("heads"),
            Column("seq_rep_4"),
            Column("change", signed=True),
            Column("verdict", left=True, priority=2),
            Column("margin that holds", priority=1),
            Column("nats lost"),
            Column("winner_jaccard", priority=3),
        ],
        body,
        "Held-out prompts, layer 0 left out. change: of seq_rep_4 against the model, paired by prompt and seed; other "
        "seed: the model's next seed against it, which greedy decoding lacks. verdict: agrees where the change is "
        f"shown to lie within {', '.join(f'{m:g}' for m in margins)} (two one-sided tests at 5 %); margin that holds: "
        "the smallest for which it would. nats lost: on held-out texts; text that is wrecked may repeat as much. "
        f"winner_jaccard: with the model's winners (model: its next seed). {INTERVALS}",
    )


def _sets(found: list[Part]) -> Table:
    """Which layers each set holds."""
    seen: dict[tuple[str, str], list[Cell]] = {}
    lead = Leading(("model",), [(part.model,) for part in found])
    for part in found:
        for one in part.sets.values():
            held = part.layers.get(one.condition)
            if held is None or one.family in {"layer"} or one.real:
                continue
            about = {k: v for k, v in one.factors.items() if k != "first_position"}
            text = " ".join(f"{layer}:{count}" for layer, count in held.items())
            said: list[Cell] = [one.order, one.name, one.heads, one.factors["layer_0"], text]
            seen.setdefault((part.model, json.dumps(about, sort_keys=True)), [*lead.cells((part.model,)), *said])
    return Table(
        "in-the-loop.sets",
        f"Which layers do the sets of heads hold? {lead.same}",
        [
            *lead.columns,
            Column("order", left=True),
            Column("set", left=True),
            Column("heads"),
            Column("layer 0", left=True),
            Column("layer:heads", left=True),
        ],
        list(seen.values()),
        "Heads are ordered and drawn on training texts alone.",
    )
