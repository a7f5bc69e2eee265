"""What `theory-gap` answers: where does the theory stop, and which surrogate is closest to a model beyond it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Answer, Interval
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
from harness.experiments.theory_gap.ladder import TIED, BeyondTheory

STOPS = "Where does the theory stop?"
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
            "The tied model is the chain read off its weights, as the theory says: KL at most "
            f"{number(worst.found.value)} nats (bound {number(worst.bound)})."
        )
    if others:
        values = [one.found.value for one in others if one.found.value is not None]
        said.append(
            f"Further models with a single chain in their weights are not: KL from {number(min(values))} to "
            f"{number(max(values))} nats in {counted(len(values), 'case')}."
        )
    return answer(STOPS, said, [*tied, *others] or list(found))


def _best(beyond: BeyondTheory, data: str) -> Answer:
    """Which surrogate explains the models best, and does it let the same tokens win?"""
    question = f"Which surrogate is closest to models beyond the theory, trained on {DATA.get(data, data)}?"
    order = beyond.ranked(data, "explained")
    if not order:
        return Answer(question, "No surrogate was compared with every model.", answered=False)
    best = order[0]
    share = beyond.found(data, "explained", best[0])
    text = (
        f"{' and '.join(best)} explain{'s' if len(best) == 1 else ''} most: {interval(share)} of what counts leave "
        f"open (the model itself: 1), over {counted(len(beyond.models), 'model')} and {counted(share.n, 'repetition')}"
    )
    clear = share.low is not None
    if len(order) > 1:
        lead = mean(beyond.values(data, "explained", best[0]) - beyond.values(data, "explained", order[1][0]))
        text += f"; {interval(lead)} more than {order[1][0]}"
        clear = clear and lead.low is not None
        text += ", no significant difference" if lead.low is not None and lead.low <= 0 else ""
    said = [f"{text}.", *_winners(beyond, data, best)]
    if not clear:
        said.insert(0, f"Not answered: {share.missing or 'the lead has no interval'}.")
    return Answer(question, " ".join(said), share, clear)


def _winners(beyond: BeyondTheory, data: str, best: Sequence[str]) -> list[str]:
    """The overlap of winner sets of the best surrogate, between floor and ceiling; nothing without rollouts."""
    own = {name: beyond.found(data, "winner_jaccard", name) for name in best}
    frame: list[Interval] = [
        beyond.found(data, "winner_jaccard", name) for name in ("model-reseeded", "model-shuffled")
    ]
    if any(one.value is None for one in (*own.values(), *frame)):
        return []
    each = " and ".join(f"{interval(one)} ({name})" for name, one in own.items())
    return [
        f"Overlap of winner sets with the model's: {each}.",
        f"Ceiling, the model with another seed: {interval(frame[0])}; floor, the model on other prompts: "
        f"{interval(frame[1])}.",
    ]
