"""What the rows of the experiment `causes` say, question by question, about the models and texts of the run alone."""

from __future__ import annotations

import pandas as pd

from harness.core.format import interval, listed
from harness.core.records import Answer, Interval
from harness.experiments._shared.sentences import rough, with_unit
from harness.experiments.causes.parts import NOTHING, REPEATED, Job, Part, parts
from harness.experiments.causes.settings import NATURAL, NOISE, SET_UP
from harness.experiments.causes.tables import SORT_WORDS
from harness.stats.equivalence import Verdict

CHANGES = "What changes repetition, at matched loss?"
SAME = "Is repetition that the prompt sets up changed as natural repetition is?"
INDUCTION = "Do induction heads cause repetition in this model?"
LOSSES = "Could the loss be matched?"
CONTEXT_WORDS: dict[str, str] = {NATURAL: "natural repetition", SET_UP: "repetition set up by the prompt"}


def answers(rows: pd.DataFrame) -> list[Answer]:
    """What the rows say, one answer per question, model and strategy, in the order of the questions.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    if not found:
        return [Answer(CHANGES, "Could not be answered: nothing was written.", answered=False)]
    models = {part.model: part for part in reversed(found)}
    return [
        *(_changes(part, context) for part in found for context in part.contexts),
        *(said for part in found if (said := _induction(part)) is not None),
        *(_same(part) for part in found if len(part.contexts) > 1),
        *(_losses(part) for part in models.values()),
    ]


def _at(part: Part) -> str:
    assert part.headline is not None
    sort, level = part.headline
    return f"the loss is raised by {level:g} nats on {SORT_WORDS[sort]}"


def _findable(verdicts: list[Verdict]) -> str:
    known = sorted(one.findable for one in verdicts if one.findable is not None)
    if not known:
        return ""
    low, high = rough(known[0]), rough(known[-1])
    return f"about {low}" if low == high else f"{low} to {high}"


def _changes(part: Part, context: str) -> Answer:
    where = f"{part.what}, {CONTEXT_WORDS[context]}"
    if part.headline is None:
        return Answer(CHANGES, f"{where}: could not be answered: no level was reached.", answered=False)
    verdicts = part.verdicts((*part.headline, context))
    if not verdicts:
        return Answer(CHANGES, f"{where}: could not be answered: no loss was matched.", answered=False)
    before = part.mean(REPEATED, NOTHING, context)
    if reason := _untested(verdicts):
        return Answer(
            CHANGES, f"{where}: seq_rep_4 is {interval(before)}; no change can be tested: {reason}.", answered=False
        )
    text = f"{where}: seq_rep_4 is {interval(before)}. {_sentence(_at(part))}.{_moved(verdicts)}"
    by = {word: [n for n, v in verdicts.items() if v.word == word] for word in ("agrees", "undecided")}
    if by["agrees"]:
        text += f" Shown to change by less than {part.margin:g}: {listed(by['agrees'])}."
    if by["undecided"]:
        could = _findable([verdicts[name] for name in by["undecided"]])
        text += f" Undecided: {listed(by['undecided'])}."
        text += f" There {could} would have been found with 80 % power" if could else " There nothing could be found"
        text += f" {_family(verdicts)}."
    else:
        text += f" All are decided {_family(verdicts)}."
    largest = max(verdicts.values(), key=lambda one: abs(one.interval.value or 0.0))
    return Answer(CHANGES, text, largest.interval)


def _moved(verdicts: dict[str, Verdict]) -> str:
    """Sentences about interventions that are shown to change repetition: those that raise it, those that lower it."""
    text = ""
    for word, sign in (("rises", 1), ("falls", -1)):
        own = {n: v for n, v in verdicts.items() if v.word == "differs" and sign * (v.interval.value or 0.0) > 0}
        if own:
            most = max(own, key=lambda name: abs(own[name].interval.value or 0.0))
            by = with_unit(own[most].interval, signed=True)
            text += (
                f" seq_rep_4 {word} with {listed(list(own))}, {'' if len(own) == 1 else f'most with {most}, '}by {by}."
            )
    return text or " No change was found with any intervention."


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _untested(verdicts: dict[str, Verdict]) -> str | None:
    """Why no figure of a family can be tested; None where any can."""
    if any(one.p_differs is not None for one in verdicts.values()):
        return None
    return next(iter(verdicts.values())).missing or "nothing varies"


def _family(verdicts: dict[str, Verdict]) -> str:
    """How many prompts and tests there are."""
    first, count = next(iter(verdicts.values())), len(verdicts)
    return f"({first.n} prompts; Holm over {count} intervention{'' if count == 1 else 's'})"


def _induction(part: Part) -> Answer | None:
    """What weakening induction heads changes, in both contexts, beside heads drawn at random and noise."""
    name, other = "induction", "random like induction"
    if part.headline is None or name not in part.names:
        return None
    sort, level = part.headline
    said: list[str] = []
    estimate: Interval | None = None
    for context in part.contexts:
        own = part.verdicts((sort, level, context)).get(name)
        if own is None:
            continue
        estimate = estimate or own.interval
        text = f" {_sentence(CONTEXT_WORDS[context])} changes by {with_unit(own.interval, signed=True)} ({_said(own)})"
        text += "."
        against = []
        for control in (other, NOISE):
            beside = part.change(Job(name, sort, level), context, of=Job(control, sort, level))
            if beside is not None and part.holds(control, sort, level):
                against.append(f"{with_unit(beside.interval, signed=True)} against {control}")
        said.append(text + (f" That is {listed(against)}." if against else ""))
    if not said:
        found = part.matched.get((name, sort, level))
        missing = None if found is None else found.missing
        reason = missing or "the loss was not matched"
        return Answer(INDUCTION, f"{part.what}: could not be answered: {reason}.", answered=False)
    count = sum(part.heads.get(name, {}).values())
    text = (
        f"{part.what}: {count} induction heads are pulled to their mean outputs until {_at(part)}.{''.join(said)} "
        "Intervals are those of single comparisons. Wang et al. (arXiv 2505.13514) and Mahaut and Franzon (arXiv "
        "2504.01100) disagree about other models; this is one model on the prompts of this run."
    )
    return Answer(INDUCTION, text, estimate)


def _said(verdict: Verdict) -> str:
    if verdict.word == "differs":
        return "shown not to be 0"
    if verdict.word == "agrees":
        return f"shown to be within {verdict.margin:g}"
    could = "" if verdict.findable is None else f"; about {rough(verdict.findable)} would have been found"
    return f"undecided{could}"


def _same(part: Part) -> Answer:
    if part.headline is None or not (found := part.contrasts(*part.headline)):
        return Answer(SAME, f"{part.what}: could not be answered: no loss was matched.", answered=False)
    if reason := _untested(found):
        return Answer(SAME, f"{part.what}: no difference can be tested: {reason}.", answered=False)
    differ = {name: one for name, one in found.items() if one.word == "differs"}
    alike = [name for name, one in found.items() if one.word == "agrees"]
    open_ = {name: one for name, one in found.items() if one.word == "undecided"}
    text = f"{part.what}: {_at(part)}."
    if differ:
        changed = [f"{name}, by {with_unit(one.interval, signed=True)}" for name, one in differ.items()]
        text += f" Repetition that the prompt sets up changes otherwise than natural repetition with {listed(changed)}."
    else:
        text += " No difference between the two kinds of repetition was found."
    if alike:
        text += f" Alike within {part.margin:g}: {listed(alike)}."
    if open_:
        could = _findable(list(open_.values()))
        text += f" Undecided: {listed(list(open_))}."
        text += f" There {could} would have been found" if could else " There nothing could be found"
        text += f" {_family(found)}."
    else:
        text += f" All are decided {_family(found)}."
    largest = max(found.values(), key=lambda one: abs(one.interval.value or 0.0))
    return Answer(SAME, text, largest.interval)


def _losses(part: Part) -> Answer:
    reached = {at: one for at, one in part.matched.items() if one.strength is not None}
    if not reached:
        return Answer(LOSSES, f"{part.model}: no level was reached by any intervention.", answered=False)
    off = {at: one.report for at, one in reached.items() if not one.holds(at[2])}
    text = (
        f"{part.model}: {len(reached)} of {len(part.matched)} levels are reached. On the other half of the texts the "
        f"loss is that of the level in {len(reached) - len(off)} of them."
    )
    at = max(reached, key=lambda one: abs((reached[one].report.value or 0.0) - one[2]) / one[2])
    text += f" Furthest off is {at[0]} at {at[2]:g} on {SORT_WORDS[at[1]]}, {with_unit(reached[at].report)} nats there."
    short: dict[str, dict[str, float]] = {}
    for (name, sort, level), one in part.matched.items():
        if one.strength is None:
            short.setdefault(sort, {}).setdefault(name, level)
    for sort, names in short.items():
        said = [f"{name} ({level:g})" for name, level in names.items()]
        text += f" Not reached on {SORT_WORDS[sort]}, from a level on: {listed(said)}."
    if off:
        said = [
            f"{name} at {level:g} on {SORT_WORDS[sort]} ({interval(one)})" for (name, sort, level), one in off.items()
        ]
        text += f" Not compared: {'; '.join(said)}."
    return Answer(LOSSES, text, reached[at].report)
