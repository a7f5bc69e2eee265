"""What the rows of the experiment `one-layer` say, question by question, for every setting of the model."""

from __future__ import annotations

import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Answer
from harness.core.rows import MODEL, RESEEDED, SHUFFLED
from harness.experiments._shared.leading import counted
from harness.experiments._shared.sentences import beyond, not_found, with_unit
from harness.experiments.one_layer.parts import FIT, LABELS, WEIGHTS, Setting, settings
from harness.stats.intervals import FEWEST_UNITS
from harness.stats.pooling import Sample, difference

SAME = "Is the trained model the chain read off its weights?"
TRAINED = "Did training reach the maximum likelihood of its data?"
RISK = "Is the excess risk what the theory predicts?"
WINS = "Do the chains predict which tokens win?"


def answers(rows: pd.DataFrame) -> list[Answer]:
    """What the rows say, one answer per question and setting, in the order of the questions.

    Args:
        rows: of the experiment, from one run.
    """
    found = settings(rows)
    if not found:
        return [Answer(SAME, "Could not be answered: no repetition was done.", answered=False)]
    said = [make(one, f"{one.what}: " if len(found) > 1 else "") for make in (_same, _trained) for one in found]
    for one in found:
        before = f"{one.what}: " if len(found) > 1 else ""
        said += [_risk(one, before, metric, name) for metric, name in one.risks if name != WEIGHTS]
    return said + [_wins(one, f"{one.what}: " if len(found) > 1 else "") for one in found if one.compared]


def _sentence(before: str, text: str) -> str:
    """A sentence behind the setting that it is about, or alone with a capital."""
    return before + text if before else text[0].upper() + text[1:]


def _same(one: Setting, before: str) -> Answer:
    """The largest difference of a probability, and whether theory claims that there is none."""
    rows = one.of("equivalence_error", WEIGHTS)
    largest = one.largest("equivalence_error", WEIGHTS)
    if largest is None:
        reason = one.sample("equivalence_error", WEIGHTS).reason or "it was not compared"
        return Answer(SAME, _sentence(before, f"could not be answered: {reason}."), answered=False)
    times = counted([int(rows["value"].notna().sum())], "repetition")
    text = "the model and the chain read off its weights give probabilities that differ by at most "
    text += f"{number(largest)} ({times})"
    verdicts = list(rows["verdict"].dropna().unique())
    unclaimed = next((text for text in verdicts if text not in {"holds", "does not hold"}), None)
    if unclaimed is not None:
        return Answer(SAME, _sentence(before, f"{text}; the equivalence is {unclaimed}."), answered=False)
    judged = "the equivalence does not hold" if "does not hold" in verdicts else "the equivalence holds"
    return Answer(SAME, _sentence(before, f"{text}: {judged}."))


def _trained(one: Setting, before: str) -> Answer:
    """The largest gap between the loss of training and its smallest possible value."""
    rows = one.of("training_gap", MODEL)
    gap = one.largest("training_gap", MODEL)
    if gap is None:
        reason = one.sample("training_gap", MODEL).reason or "the gap was not measured"
        return Answer(TRAINED, _sentence(before, f"could not be answered: {reason}."), answered=False)
    measured, missing = int(rows["value"].notna().sum()), int(rows["value"].isna().sum())
    text = f"training ended at most {number(gap)} nats per observation from the maximum likelihood of its data "
    text += f"({counted([measured], 'repetition')})."
    if missing:
        text += f" In {counted([missing], 'other repetition')} there is no maximum likelihood estimate."
    return Answer(TRAINED, _sentence(before, text))


def _risk(one: Setting, before: str, metric: str, name: str) -> Answer:
    """One excess risk against its prediction."""
    found, predicted = one.interval(metric, name), one.predicted(metric, name)
    over = "" if metric == "excess_risk" else " over the trained model"
    whose = f"excess risk of {'the ' if name == MODEL else ''}{LABELS.get(name, name)}{over}"
    if found.value is None or predicted is None:
        reason = found.missing or "nothing was predicted"
        return Answer(RISK, _sentence(before, f"{whose}: could not be answered: {reason}."), found, answered=False)
    text = f"{whose}: {with_unit(found, 'nats')} per token, predicted {number(predicted)}"
    times = counted([found.n], "repetition")
    gone = one.sample(metric, name).missing
    also = f" {counted([gone], 'repetition')} had no value." if gone else ""
    verdict = one.verdict(metric, name)
    if verdict is None:
        reason = found.missing or f"an interval needs {FEWEST_UNITS} repetitions"
        return Answer(RISK, _sentence(before, f"{text}. Not answered: {reason}.{also}"), found, answered=False)
    judged = f"agrees ({times})"
    if verdict != "agrees":
        judged = f"does not agree (ratio {number(one.ratio(metric, name))}, {times})"
    return Answer(RISK, _sentence(before, f"{text}, which {judged}.{also}"), found)


def _wins(one: Setting, before: str) -> Answer:
    """The chain that agrees best on winners, against another prompt and beside the model with another seed."""
    metric = "winner_jaccard"
    found = {name: one.sample(metric, name) for name in one.compared}
    ranked = [name for name in one.compared if name not in (SHUFFLED, RESEEDED) and found[name].value is not None]
    if not ranked:
        return Answer(WINS, _sentence(before, "could not be answered: no chain continued a prompt."), answered=False)
    name = FIT if FIT in ranked else ranked[0]
    best = found[name]
    times = counted([len(best.units)], "repetition")
    text = f"the winner sets of {name} and of the model overlap by {interval(best.interval())} ({times})."
    open_ = best.interval().low is None
    floor, ceiling = (found.get(other) for other in (SHUFFLED, RESEEDED))
    if floor is not None and floor.value is not None:
        text += _beside(best, floor, "Another prompt's continuation")
    if ceiling is not None and ceiling.value is not None:
        text += _beside(best, ceiling, "The model with another seed")
    return Answer(WINS, _sentence(before, text), best.interval(), answered=not open_)


def _beside(sample: Sample, other: Sample, name: str) -> str:
    """How far a row of the frame is from a figure."""
    lead = difference(other, sample, "winner_jaccard", paired=True)
    shown = f" {name} reaches {interval(other.interval())}"
    if lead.identical:
        return f"{shown}, the same in every repetition."
    if lead.direction:
        return f"{shown}, {beyond(lead.interval)} {'more' if lead.direction > 0 else 'less'}."
    return f"{shown}; {not_found(lead.interval, 'it')}."
