"""What the rows of heads replaced while the model runs say, question by question."""

from __future__ import annotations

import pandas as pd

from harness.core.format import interval, percent
from harness.core.records import Answer
from harness.experiments._shared.claims_words import counted
from harness.experiments._shared.sentences import rough, with_unit
from harness.experiments.in_the_loop.parts import LOST, REPEATED, Part, SetOf, parts, smallest_margin
from harness.stats.grouped import group_mean
from harness.stats.power import smallest_difference

LOSES = "What does the model lose when heads become chains?"
RANDOM = "Does it matter which heads become chains?"
WRITES = "Does the model repeat the same when heads are chains?"
QUARTER = 0.25


def answers(rows: pd.DataFrame) -> list[Answer]:
    """What the rows say, one answer per question, model and strategy, in the order of the questions.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    if not found:
        return [Answer(LOSES, "Could not be answered: no head was replaced on a held-out text.", answered=False)]
    return [
        *(_loses(part) for part in found),
        *(said for part in found if (said := _random(part)) is not None),
        *(_writes(part) for part in found if part.margin is not None),
    ]


def _at_quarter(sets: list[SetOf]) -> SetOf | None:
    """The set whose share is closest to a quarter."""
    return min(sets, key=lambda one: abs(one.factors["share"] - QUARTER), default=None)


def _loses(part: Part) -> Answer:
    sets = part.best(part.leaders[0]) if part.leaders else []
    one = _at_quarter(sets)
    if one is None:
        return Answer(LOSES, f"{part.what}: could not be answered: no share of heads was replaced.", answered=False)
    own = part.mean(LOST, one.order, one.condition)
    text = (
        f"{part.what}: with {one.order} in place of {one.heads} heads, layer 0 left out, the model loses "
        f"{with_unit(own, 'nats')} per token ({own.n} held-out prompts)."
    )
    null = part.null(one.condition)
    if null is not None:
        other = part.mean(LOST, null, one.condition)
        text += f" {null}, the best null on training texts, loses {with_unit(other, 'nats')} in the same heads"
        found = part.recovered(one.condition)
        text += f": {percent(found)} is recovered." if found.value is not None else f"; {found.missing}."
    others = [_short(part, other) for other in sets if other is not one]
    text += f" Other sizes: {', '.join(others)}." if others else ""
    return Answer(LOSES, text, own, answered=own.low is not None)


def _short(part: Part, one: SetOf) -> str:
    return f"{one.heads} heads {interval(part.mean(LOST, one.order, one.condition))}"


def _random(part: Part) -> Answer | None:
    """The best heads against random ones of the same number."""
    for leader in part.leaders:
        drawn = part.chosen(leader, "random")
        one = _at_quarter([s for s in part.best(leader) if any(d.heads == s.heads for d in drawn)])
        if one is None:
            continue
        same = [d for d in drawn if d.heads == one.heads]
        own = part.held_out[LOST, leader, one.condition]
        mean = sum(part.held_out[LOST, leader, d.condition]["value"] for d in same) / len(same)
        both = own.assign(other=mean).dropna()
        found = group_mean(both["other"] - both["value"], both["group"]).interval()
        best = part.mean(LOST, leader, one.condition)
        text = (
            f"{part.what}: {one.heads} random heads as {leader} cost {with_unit(found, 'nats', signed=True)} more than "
            f"the {one.heads} chosen on training texts ({interval(best)}; {counted(len(same), 'draw')})."
        )
        if found.low is not None and found.high is not None and found.low <= 0 <= found.high:
            least = smallest_difference(found)
            could = "" if least is None else f" This run could have found a difference of about {rough(least)} nats."
            text += f" No difference was found.{could}"
        return Answer(RANDOM, text, found, answered=found.low is not None)
    return None


def _writes(part: Part) -> Answer:
    own = [(arm, one) for arm, one in part.written if arm == one.order and one.family in {"share", "alone"}]
    one = _at_quarter([one for _, one in own])
    if one is None or part.margin is None:
        return Answer(WRITES, f"{part.what}: could not be answered: nothing was written.", answered=False)
    verdict = part.change(one.order, one.condition)
    assert verdict is not None
    nats = part.mean(LOST, one.order, one.condition)
    before, after = part.of_model(REPEATED), part.mean(REPEATED, one.order, one.condition)
    text = (
        f"{part.what}: seq_rep_4 is {interval(before)}, and {interval(after)} with {one.order} in place of {one.heads} "
        f"heads, which costs {with_unit(nats, 'nats')} per token on texts."
    )
    text += f" Change {with_unit(verdict.interval, signed=True)}, {_word(part.margin, verdict.word)}"
    least = smallest_margin(verdict)
    text += "." if least is None else f"; the smallest margin that holds is {rough(least)} ({verdict.n} prompts)."
    again = part.reseeded()
    if again is not None:
        text += f" The model's own next seed: {with_unit(again.interval, signed=True)}."
    return Answer(WRITES, text, verdict.interval, answered=verdict.word != "undecided")


def _word(margin: float, word: str) -> str:
    return {
        "agrees": f"shown to be within {margin:g}",
        "differs": "shown not to be 0",
        "undecided": f"neither shown to be within {margin:g} nor not to be 0",
    }[word]
