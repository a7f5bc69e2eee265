"""What `theory-gap` answers: where does the theory stop, and which surrogate is closest to a model beyond it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Answer, Interval
from harness.core.rows import MODEL, RESEEDED, SHUFFLED
from harness.experiments._shared.claims import mean
from harness.experiments._shared.claims_words import (
    Comparison,
    answer,
    comparisons,
    counted,
    furthest,
    groups,
    picked,
    verdict_answer,
)
from harness.experiments._shared.sentences import beyond as size_of
from harness.experiments._shared.sentences import not_beyond, not_found
from harness.experiments.theory_gap.ladder import PAIRS, TIED, BeyondTheory
from harness.stats.contest import beyond_chance
from harness.stats.intervals import FEWEST_UNITS, too_few
from harness.stats.pooling import SEED
from harness.stats.significance import sign_flip_p

STOPS = "Where does the theory stop?"
CLOSURE = "Are winners of surrogates that may leave their context nearer to the model's than those of closed ones?"
DATA = {"ccmc": "paths of a chain", "text": "text"}


def answers(rows: pd.DataFrame) -> list[Answer]:
    """The tied model and those beyond it, the best surrogate for each kind of data, and the verdicts.

    Args:
        rows: of this experiment, of one run.
    """
    found = comparisons(rows)
    if not found:
        return [answer(STOPS, [], [])]
    beyond = BeyondTheory(rows)
    made = [_stops(found)]
    made += [_best(beyond, data) for data in beyond.data]
    made += _closure(beyond)
    return [*made, _verdicts(found)]


def _verdicts(found: Sequence[Comparison]) -> Answer:
    """The comparisons of the tied model, which the theory is about, and how many hold beyond it all the same."""
    within = [one for one in found if one.factors.get("rung") == TIED]
    said = verdict_answer(within or found, {})
    others = [one for group in groups(found) for one in group if one not in within]
    if not within or not others:
        return said
    beyond = f"{sum(one.right for one in others)} of {counted(len(others), 'comparison')}"
    text = f"Tied model: {said.text} The same predictions beyond it, where the theory says nothing: {beyond} agree."
    return replace(said, text=text)


def _stops(found: Sequence[Comparison]) -> Answer:
    """Is the chain off the weights the model, and how much of the model does a fitted chain explain?"""
    exact = picked(found, "kl_weights")
    tied = [one for one in exact if one.factors["rung"] == TIED]
    others = [one for one in exact if one.factors["rung"] != TIED]
    said = []
    if tied:
        worst = furthest(tied)
        said.append(
            f"Theory: the tied model is the chain read off its weights. It {'is' if worst.right else 'is not'}: KL at "
            f"most {number(worst.found.value)} nats (bound {number(worst.bound)})."
        )
    if others:
        values = [one.found.value for one in others if one.found.value is not None]
        said.append(
            f"Of further models with a single chain in their weights, {sum(one.right for one in others)} of "
            f"{len(others)} are: KL from {number(min(values))} to {number(max(values))} nats."
        )
    if not said:
        return Answer(STOPS, "None of the run's models has a single chain in its weights.", answered=False)
    return answer(STOPS, said, [*tied, *others])


def _best(beyond: BeyondTheory, data: str) -> Answer:
    """Which surrogate explains the models best, and does it let the same tokens win?"""
    question = f"Which surrogate is closest to models beyond the theory, trained on {DATA.get(data, data)}?"
    order = beyond.ranked(data, "explained")
    if not order:
        return Answer(question, "No surrogate was compared with every model.", answered=False)
    best = order[0]
    share = beyond.found(data, "explained", best[0])
    said = [
        f"{' and '.join(best)} explain{'s' if len(best) == 1 else ''} most: {interval(share)} of what counts leave "
        f"open (the model itself: 1), over {counted(len(beyond.models), 'model')} and "
        f"{counted(share.n, 'repetition')}."
    ]
    fewest = share.n
    if len(order) > 1:
        lead = beyond.lead(data, "explained", best[0], order[1][0])
        told = beyond_chance(beyond.leads(data, "explained"))
        said.append(_lead(lead, order[1][0], told[0], len(told)))
        fewest = min(fewest, lead.n)
    said += _winners(beyond, data, best)
    if fewest < FEWEST_UNITS:
        said.insert(0, f"Not answered: {too_few(fewest)}.")
    return Answer(question, " ".join(said), share, fewest >= FEWEST_UNITS)


def _lead(lead: Interval, second: str, told: bool, tests: int) -> str:
    """The lead of the best in words, or that none was found and which one could have been."""
    if lead.low is None or (lead.low > 0 and told):
        return f"The lead over {second} is {interval(lead)}."
    said = not_beyond(lead, second, tests) if lead.low > 0 else not_found(lead, second)
    return f"{said[0].upper()}{said[1:]}."


def _closure(beyond: BeyondTheory) -> list[Answer]:
    """Open surrogates beside their closed counterparts: whose winners are nearer to the ceiling."""
    places = [(data, first, second) for data in beyond.data for first, second in PAIRS]
    gaps = [beyond.nearer(data, "winner_jaccard", first, second) for data, first, second in places]
    kept = [(place, gap) for place, gap in zip(places, gaps, strict=True) if len(gap)]
    if not kept:
        return []
    told = beyond_chance([sign_flip_p(gap, SEED) for _, gap in kept])
    said, estimates = [], [mean(gap) for _, gap in kept]
    for data in beyond.data:
        of = [index for index, (place, _) in enumerate(kept) if place[0] == data]
        if not of:
            continue
        ends = [interval(beyond.found(data, "winner_jaccard", name)) for name in (RESEEDED, SHUFFLED)]
        said.append(
            f"Models of {DATA.get(data, data)}: overlap of winners {ends[0]} with another seed (ceiling), {ends[1]} on "
            "other prompts (floor)."
        )
        said += _new(beyond, data)
        for index in of:
            said += _nearer(beyond, kept[index][0], estimates[index], told[index], len(kept))
    if any(first == "ccmc-open" for (_, first, _), _ in kept):
        said.append("The bigrams differ in nothing but this; ccmc-open and ccmc-fit also in their base transitions.")
    fewest = min(one.n for one in estimates)
    if fewest < FEWEST_UNITS:
        said.insert(0, f"Not answered: {too_few(fewest)}.")
    return [Answer(CLOSURE, " ".join(said), estimates[-1], fewest >= FEWEST_UNITS)]


def _new(beyond: BeyondTheory, data: str) -> list[str]:
    """How many new tokens the models and the open surrogates write; nothing where the rows do not say."""
    names = [MODEL, *(first for first, _ in PAIRS)]
    found = [(name, beyond.found(data, "new_tokens", name)) for name in names]
    known = [f"{'the models' if name == MODEL else name} {interval(one)}" for name, one in found if one.n]
    return [f"New tokens in rollouts: {', '.join(known)}; closed surrogates write none."] if known else []


def _nearer(beyond: BeyondTheory, place: tuple[str, str, str], gap: Interval, told: bool, tests: int) -> list[str]:
    """One open surrogate beside its closed counterpart, in words."""
    data, first, second = place
    own = [interval(beyond.found(data, "winner_jaccard", name)) for name in (first, second)]
    said = [f"{first} (open) has {own[0]}, {second} (closed) {own[1]}."]
    value, low, high = gap.value, gap.low, gap.high
    if value is None or low is None or high is None:
        return said
    if low <= 0 <= high:
        return [*said, f"Distance to the ceiling, {second} less {first}: {not_found(gap, '0')}."]
    if not told:
        return [*said, f"Distance to the ceiling, {second} less {first}: {not_beyond(gap, '0', tests)}."]
    nearer = first if value > 0 else second
    return [*said, f"{nearer} is nearer to the ceiling, by {size_of(gap)}."]


def _winners(beyond: BeyondTheory, data: str, best: Sequence[str]) -> list[str]:
    """The overlap of winner sets of the best surrogate, between floor and ceiling; nothing without rollouts."""
    own = {name: beyond.found(data, "winner_jaccard", name) for name in best}
    frame: list[Interval] = [beyond.found(data, "winner_jaccard", name) for name in (RESEEDED, SHUFFLED)]
    if any(one.value is None for one in (*own.values(), *frame)):
        return []
    each = " and ".join(f"{interval(one)} ({name})" for name, one in own.items())
    return [
        f"Overlap of winner sets with the model's: {each}.",
        f"Ceiling, the model with another seed: {interval(frame[0])}; floor, the model on other prompts: "
        f"{interval(frame[1])}.",
    ]
