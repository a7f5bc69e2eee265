"""What the rows of the count ablation say: does a model repeat less without the count, and at what cost?"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from harness.core.records import Answer
from harness.experiments._shared.sentences import beyond, not_found, testable, with_unit
from harness.experiments.count_ablation.conditions import (
    HALVES,
    NONE,
    PROSE,
    REPETITION,
    Part,
    contrast,
    less_penalty,
    parts,
    place_name,
    strongest,
)
from harness.experiments.count_ablation.tables import CONTRASTS
from harness.stats.pooling import difference

EVERYWHERE = "all"


def answers(rows: pd.DataFrame) -> list[Answer]:
    """What the rows say, one answer per question and model, in the order of the questions.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    questions: tuple[tuple[str, Callable[[Part, str], Answer]], ...] = (
        ("Does the model repeat less when its attention cannot count?", _repetition),
        ("What does it cost on prose?", _cost),
        ("Does a repetition penalty that costs as much do better?", _penalty),
    )
    made = [make(part, question) for question, make in questions for part in found]
    where = "Does it matter where the count is taken away?"
    return made + [_place(part, where, *pair) for part in found for pair in CONTRASTS]


def _unanswered(question: str, part: Part, reason: str) -> Answer:
    return Answer(question, f"{part.model}: could not be answered: {reason}.", answered=False)


def _taken(part: Part) -> str:
    strength = strongest(part)
    return f"without the count in all heads (strength {strength:g})"


def _repetition(part: Part, question: str) -> Answer:
    found = difference(part.placed(EVERYWHERE, REPETITION), part.sample(NONE, REPETITION), REPETITION, paired=True)
    if found.interval.value is None:
        return _unanswered(question, part, found.interval.missing or "nothing was measured")
    before, after = part.interval(NONE, REPETITION), part.placed(EVERYWHERE, REPETITION).interval()
    text = f"{part.model}: {_taken(part)} seq_rep_4 is {with_unit(after)}, with it {with_unit(before)}"
    if found.identical:
        text += ", the same on every prompt."
    elif found.direction:
        word = "more" if found.direction > 0 else "less"
        text += f": it repeats {word}, by {beyond(found.interval)} ({found.interval.n} held-out prompts)."
    else:
        text += f": {not_found(found.interval, 'the model with it')}."
    return Answer(question, text, found.interval, answered=testable(found))


def _cost(part: Part, question: str) -> Answer:
    found = difference(part.placed(EVERYWHERE, PROSE), part.sample(NONE, PROSE), PROSE, paired=True)
    if found.interval.value is None:
        return _unanswered(question, part, found.interval.missing or "no prose was scored")
    text = f"{part.model}: {_taken(part)} the loss on prose "
    if found.identical:
        text += f"is the same in each of {found.interval.n} texts."
    elif found.direction:
        word = "rises" if found.direction > 0 else "falls"
        text += f"{word} by {beyond(found.interval, 'nats')} per token ({found.interval.n} texts)."
    else:
        text = f"{part.model}, loss on prose {_taken(part)}: {not_found(found.interval, 'the model with it', 'nats')}."
    return Answer(question, text, found.interval, answered=testable(found))


def _penalty(part: Part, question: str) -> Answer:
    own, loss = part.placed(EVERYWHERE, REPETITION), part.placed(EVERYWHERE, PROSE)
    cost = difference(loss, part.sample(NONE, PROSE), PROSE, paired=True).interval
    found = less_penalty(part, own, cost.value)
    if found.interval.value is None:
        return _unanswered(question, part, found.interval.missing or "nothing was measured")
    penalty = "a repetition penalty that costs as much on prose"
    text = f"{part.model}: {_taken(part)} seq_rep_4 "
    if found.identical:
        text += f"is that of {penalty}, on every prompt."
    elif found.direction:
        word = "above" if found.direction > 0 else "below"
        text += f"is {beyond(found.interval)} {word} that of {penalty} ({found.interval.n} held-out prompts)."
    else:
        text = f"{part.model}, seq_rep_4 {_taken(part)}: {not_found(found.interval, penalty)}."
    return Answer(question, text, found.interval, answered=testable(found))


def _place(part: Part, question: str, one: str, other: str) -> Answer:
    found = contrast(part, one, other, REPETITION)
    first, second = (f"the {place_name(p)}{' of the layers' if p in HALVES else ''}" for p in (one, other))
    if found.interval.value is None:
        return _unanswered(question, part, f"{first} and {second} were not both measured")
    text = f"{part.model}: without the count in {first} "
    if found.identical:
        text += f"seq_rep_4 is that of {second}, on every prompt."
    elif found.direction:
        word = "more" if found.direction > 0 else "less"
        text += f"it repeats {beyond(found.interval)} {word} than without it in {second} ({found.interval.n} prompts)."
    else:
        missed = not_found(found.interval, f"the {place_name(other)}")
        text = f"{part.model}, seq_rep_4 without the count in {first}: {missed}."
    return Answer(question, text, found.interval, answered=testable(found))
