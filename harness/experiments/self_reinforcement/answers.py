"""What the rows of self-reinforcement say, question by question."""

from __future__ import annotations

import pandas as pd

from harness.core.format import interval, listed, number, percent
from harness.core.records import Answer, Interval
from harness.core.rows import MODEL
from harness.experiments._shared.sentences import rough, with_unit
from harness.experiments.self_reinforcement.parts import (
    AGAINST,
    SLOPE,
    UNDECIDED,
    WINS,
    WITHIN,
    P,
    Part,
    Tested,
    closed,
    in_the_loop,
    parts,
)
from harness.stats.grouped import group_mean
from harness.stats.power import smallest_difference

RISES = "Does a sentence become more likely each time it is repeated?"
CHAIN = "Could a closed chain have this curve?"
CLOSEST = "Which surrogate has the model's curve?"
HEADS = "Does the model keep its curve when heads are chains?"


def answers(rows: pd.DataFrame) -> list[Answer]:
    """What the rows say, one answer per question and model, in the order of the questions.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    if not found:
        return [Answer(RISES, "Could not be answered: no sentence was repeated to a model.", answered=False)]
    return [
        *(_rises(part) for part in found),
        *(_chain(part) for part in found),
        *(said for part in found if (said := _closest(part)) is not None),
        *(said for part in found if (said := _heads(part)) is not None),
    ]


def _rises(part: Part) -> Answer:
    preamble, last = part.preambles[0], part.last
    said = []
    for kind in part.kinds:
        one = [part.mean(P, MODEL, kind, preamble, k) for k in (0, 1, last)]
        slope = part.mean(SLOPE, MODEL, kind, preamble)
        said.append(
            f"{kind.capitalize()} sentences: {', '.join(number(found.value) for found in one)}, by "
            f"{with_unit(slope, signed=True)} per doubling from k = 1 (winning rate "
            f"{percent(part.mean(WINS, MODEL, kind, preamble, last))})."
        )
    first = part.mean(SLOPE, MODEL, part.kinds[0], preamble)
    text = (
        f"{part.model}: mean probability of a token with its sentence 0, 1 and {last} times in the context "
        f"({part.prompts()} held-out prompts). {' '.join(said)}"
    )
    return Answer(RISES, text, first, answered=first.low is not None)


def _chain(part: Part) -> Answer:
    if part.starts_with and 0 in part.preambles:
        text = (
            f"{part.model}: not tested, as every text of the model begins with a token of its own: counts never scale."
        )
        return Answer(CHAIN, text, answered=False)
    if not part.tested:
        return Answer(CHAIN, f"{part.model}: not tested, as every text had a preamble.", answered=False)
    words = " ".join(_tested(one) for one in part.tested)
    bound = number(part.tested[0].bound)
    verdicts, beyond = [one.verdict for one in part.tested], [one.word for one in part.tested].count(AGAINST)
    text = (
        f"{part.model}: a closed chain, whatever its base transitions, predicts a slope of 0 at the first token of a "
        f"repetition. Over all tokens it can have at most {bound} nats per doubling. {words} Over all tokens the slope "
        f"is beyond what is possible with {beyond} of {len(verdicts)} kinds."
    )
    if AGAINST in verdicts:
        text += f" {_against(verdicts)} (Holm, {len(verdicts)} kinds)."
    elif UNDECIDED in verdicts:
        text += f" Undecided.{_could(part.tested)}"
    else:
        text += " The curve is one that a closed chain can have."
    estimate = part.tested[0].first.interval
    return Answer(CHAIN, text, estimate, answered=AGAINST in verdicts or set(verdicts) == {WITHIN})


def _against(verdicts: list[str]) -> str:
    many = verdicts.count(AGAINST)
    return "The first token is evidence against a closed chain" + (
        "" if many == len(verdicts) else f" with {many} of {len(verdicts)} kinds"
    )


def _tested(one: Tested) -> str:
    return (
        f"{one.kind.capitalize()} sentences: {with_unit(one.first.interval, signed=True)} at the first token, "
        f"{with_unit(one.whole, 'nats', signed=True)} over all: {one.verdict}."
    )


def _could(tested: list[Tested]) -> str:
    least = [size for one in tested if (size := smallest_difference(one.first.interval)) is not None]
    return f" At the first token this run could have found a slope of about {rough(max(least))}." if least else ""


def _closest(part: Part) -> Answer | None:
    """The arm whose curves are closest, over kinds without a preamble; and the best closed chain."""
    preamble = part.preambles[0]
    arms = [arm for arm in part.arms if arm != MODEL and not in_the_loop(arm)]
    found = {arm: mean for arm in arms if (mean := _distance(part, arm, preamble)).value is not None}
    if not found:
        return None
    ranked = sorted(found, key=lambda arm: found[arm].value or 0.0)
    best = ranked[0]
    slopes = [f"{kind} {interval(part.against_model(SLOPE, best, kind, preamble), signed=True)}" for kind in part.kinds]
    text = (
        f"{part.model}: the curve of {best} is closest, {interval(found[best])} away on average over k >= 1 and kinds "
        f"of sentences ({found[best].n} groups of prompts). Its slope per doubling less the model's: {listed(slopes)}."
    )
    chains = [arm for arm in ranked if closed(arm)]
    if chains and chains[0] != best:
        text += f" The closest closed chain is {chains[0]}, {interval(found[chains[0]])} away."
    return Answer(CLOSEST, text, found[best], answered=found[best].low is not None)


def _heads(part: Part) -> Answer | None:
    """The slope with heads replaced less that without, on the same sentences."""
    arms, preamble = [arm for arm in part.arms if in_the_loop(arm)], part.preambles[0]
    if not arms:
        return None
    said = []
    for arm in arms:
        changes = [
            f"{kind} {interval(part.against_model(SLOPE, arm, kind, preamble), signed=True)}" for kind in part.kinds
        ]
        away = interval(_distance(part, arm, preamble))
        said.append(f"With {arm} the slope per doubling changes by {listed(changes)}. The curve is {away} away.")
    first = part.against_model(SLOPE, arms[0], part.kinds[0], preamble)
    text = f"{part.model}, {part.prompts()} held-out prompts, layer 0 left out. {' '.join(said)}"
    return Answer(HEADS, text, first, answered=first.low is not None)


def _distance(part: Part, arm: str, preamble: int) -> Interval:
    """Mean over the kinds of sentences; a prompt counts with the mean over its kinds."""
    tables = [found for kind in part.kinds if (found := part.distance(arm, kind, preamble)) is not None]
    if not tables:
        return Interval(None, None, None, 0, "not measured")
    whole = pd.concat(tables)
    by_prompt = whole.groupby(level=0).agg(value=("value", "mean"), group=("group", "first"))
    return group_mean(by_prompt["value"], by_prompt["group"]).interval()
