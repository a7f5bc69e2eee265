"""What the rows of the generation experiment say, question by question, for every model and strategy."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from harness.core.records import Answer
from harness.core.rows import MODEL
from harness.experiments._shared.sentences import beyond, not_beyond, not_found, rough, testable, with_unit
from harness.experiments.generation.parts import CEILING, FLOOR, Part, parts
from harness.experiments.generation.recovered import BASELINE, NO_ROOM, recovered
from harness.stats.contest import beyond_chance
from harness.stats.intervals import FEWEST_UNITS
from harness.stats.pooling import Sample, difference
from harness.stats.power import smallest_difference

DISTANCE = "the distance from another prompt's continuation to the model's own"
MOST_NAMED = 3  # surrogates that one sentence lists


def answers(rows: pd.DataFrame) -> list[Answer]:
    """What the rows say, one answer per question, model and strategy, in the order of the questions.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    questions: tuple[tuple[str, Callable[[Part, str], Answer]], ...] = (
        ("How much of its probability does the model give to tokens of its context?", _in_context),
        ("Which surrogate is closest to the model one token ahead?", _next_token),
        ("Whose winners agree best with those of the model?", _winners),
        ("Which surrogate repeats as much as the model?", _repetition),
        ("How much of what the model repeats does the best surrogate recover?", _recovered),
    )
    return [make(part, question) for question, make in questions for part in found]


def _unanswered(question: str, part: Part, reason: str) -> Answer:
    return Answer(question, f"{part.what}: could not be answered: {reason}.", answered=False)


def _listed(names: list[str]) -> str:
    """Some names, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_NAMED])} and {more} more"


def _in_context(part: Part, question: str) -> Answer:
    mass = part.interval("in_context_mass", MODEL)
    if mass.value is None:
        return _unanswered(question, part, mass.missing or "no text was scored")
    text = (
        f"{part.what}: the model gives {with_unit(mass)} of its probability to tokens of its context "
        f"({mass.n} held-out prompts). A chain on the context describes this part and no other."
    )
    return Answer(question, text, mass)


def _next_token(part: Part, question: str) -> Answer:
    """The surrogate with the least KL, and its lead over the next that is not the same in every digit."""
    found = {name: part.sample("kl", name) for name in part.ranked}
    infinite = [name for name, sample in found.items() if sample.missing]  # a mean of the others would flatter
    order = sorted(
        (n for n, s in found.items() if s.value is not None and not s.missing), key=lambda n: _value(found[n])
    )
    if not order:
        return _unanswered(question, part, "no surrogate has a finite KL on every held-out prompt")
    best = found[order[0]]
    leads = {name: difference(found[name], best, "kl", paired=True) for name in order[1:]}
    same = [order[0], *(name for name, lead in leads.items() if lead.identical)]
    behind = [name for name in order if name not in same]
    verb = "is closest one token ahead" if len(same) == 1 else "are closest one token ahead, and equal"
    text = f"{part.what}: {' and '.join(same)} {verb}, KL {with_unit(best.interval(), 'nats')} on tokens of the context"
    if infinite:
        text += f" (infinite somewhere: {_listed(infinite)})"
    if not behind:
        return Answer(question, f"{text}; there is no other to compare with.", best.interval())
    lead = leads[behind[0]]
    if lead.direction and beyond_chance([leads[name].p for name in behind])[0]:
        return Answer(
            question, f"{text}. {behind[0]} is {beyond(lead.interval, 'nats')} further away.", best.interval()
        )
    if lead.direction:
        return Answer(
            question,
            f"{text}. Runner-up: {not_beyond(lead.interval, behind[0], len(behind), 'nats')}.",
            best.interval(),
        )
    text = f"{text}. Runner-up: {not_found(lead.interval, behind[0], 'nats')}."
    return Answer(question, text, best.interval(), answered=testable(lead))


def _value(sample: Sample) -> float:
    assert sample.value is not None
    return sample.value


def _winners(part: Part, question: str) -> Answer:
    """The surrogate with the largest overlap of winner sets, against the floor and beside the ceiling."""
    metric = "winner_jaccard"
    found = {name: part.sample(metric, name) for name in part.contenders if part.sample(metric, name).value is not None}
    floor, ceiling = part.sample(metric, FLOOR), part.sample(metric, CEILING)
    if not found:
        return _unanswered(question, part, "no surrogate continued a held-out prompt")
    if floor.value is None:
        return _unanswered(question, part, "one held-out prompt has no other to be compared with")
    order = sorted(found, key=lambda name: -_value(found[name]))
    best = found[order[0]]
    lead = difference(best, floor, metric, paired=True)
    text = f"{part.what}: the winners of {order[0]} agree best, overlap {with_unit(best.interval())}"
    other = "the model's continuation of another prompt"
    # the best was picked among several, so that its test is one of as many
    if lead.direction and beyond_chance([difference(found[n], floor, metric, paired=True).p for n in order])[0]:
        text += f", {beyond(lead.interval)} {'better' if lead.direction > 0 else 'worse'} than {other}."
    elif lead.direction:
        said = not_beyond(lead.interval, other, len(order))
        text += f". {said[0].upper()}{said[1:]}."
    else:
        text += f"; {not_found(lead.interval, other)}."
    text += f" The model itself: {with_unit(floor.interval())} on another prompt"
    if part.one_continuation:
        text += ", 1 with another seed by construction, since it has one continuation."
    else:
        text += f", {with_unit(ceiling.interval())} with another seed." if ceiling.value is not None else "."
    return Answer(question, text, best.interval(), answered=testable(lead))


def _repetition(part: Part, question: str) -> Answer:
    """The surrogate whose mean seq_rep_4 is closest to the model's, and every other without a difference."""
    metric = "seq_rep_4"
    real = part.sample(metric, MODEL)
    found = {name: difference(part.sample(metric, name), real, metric, paired=True) for name in part.contenders}
    found = {name: lead for name, lead in found.items() if lead.interval.value is not None}
    if not found:
        return _unanswered(question, part, "no prompt has a continuation of four tokens or more on both sides")
    order = sorted(found, key=lambda name: abs(found[name].interval.value or 0.0))
    best = found[order[0]]
    text = f"{part.what}: the model repeats {with_unit(real.interval())} of its 4-grams (seq_rep_4). "
    text += f"{order[0]} comes closest with {with_unit(part.interval(metric, order[0]))}"
    if best.identical:
        text += ", the same on every prompt."
    elif best.direction:
        text += f", {beyond(best.interval)} {'more' if best.direction > 0 else 'less'}."
    else:
        text += f": {not_found(best.interval, 'the model')}."
        nor = [name for name in order[1:] if not found[name].direction and found[name].interval.low is not None]
        if nor:
            text += f" Nor was one found for {_listed(nor)}."
    return Answer(question, text, best.interval, answered=testable(best))


def _recovered(part: Part, question: str) -> Answer:
    """The recovered share of the surrogate with the least error, where floor and ceiling differ beyond chance."""
    of = recovered(part)
    best, counts = of.best, of.of(BASELINE)
    if best is None:
        return _unanswered(question, part, of.room.missing or "nothing was compared")
    share = best.all
    if share.value is None:
        reason = share.missing or NO_ROOM
        if reason == NO_ROOM:
            reason += f" (difference of their errors {with_unit(of.room, signed=True)}, {of.prompts} prompts"
            least = smallest_difference(of.room)
            reason += ")" if least is None else f"). One of about {rough(least)} could have been found"
        return _unanswered(question, part, reason)
    what = f"over winners, timing and repetition ({of.prompts} prompts)"
    low, high = (share.low, share.high) if share.low is not None and share.high is not None else (share.value,) * 2
    if low > 0:
        text = f"{best.surrogate} recovers {with_unit(share)} of {DISTANCE}, {what}."
    elif high < 0:
        text = "none does better than another prompt's continuation. "
        text += f"The best, {best.surrogate}, recovers {with_unit(share)} of {DISTANCE}, {what}."
    else:
        text = f"{best.surrogate} has the least error, {what}. "
        text += f"Of {DISTANCE}: {not_found(share, 'a recovered share of 0')}."
    if counts is not None and counts is not best and counts.all.value is not None:
        text += f" {BASELINE} recovers {with_unit(counts.all)}."
    if of.ties:
        text += f" Not significantly worse: {_listed(of.ties)}."
    return Answer(question, f"{part.what}: {text}", share, answered=share.low is not None or share.n >= FEWEST_UNITS)
