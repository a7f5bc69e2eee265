"""What the rows of the experiment `repetition` say, question by question, for every model and strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pandas as pd

from harness.core.records import Answer, Interval
from harness.core.rows import MODEL
from harness.experiments._shared.sentences import beyond, rough, with_unit
from harness.experiments.repetition.chosen import short_rung
from harness.experiments.repetition.chosen_answers import one_rung
from harness.experiments.repetition.hazard_tables import calibrated, calibrations
from harness.experiments.repetition.onset_table import onset_answers, sweeps
from harness.experiments.repetition.parts import Paired, Part, paired, parts, word_of
from harness.experiments.repetition.refinement_table import refined, removed_by
from harness.experiments.repetition.sources import DECODED, LOGIT, RAW
from harness.experiments.repetition.unseen_table import joint_answers
from harness.experiments.repetition.walk_tables import skill_of
from harness.stats.contest import beyond_chance
from harness.stats.equivalence import Verdict, judged_together

METRIC = "seq_rep_4"
COUNTS = "counts"


def answers(rows: pd.DataFrame) -> list[Answer]:
    """What the rows say, one answer per question, model and strategy, in the order of the questions.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    questions: tuple[tuple[str, Callable[[Part, str], Answer]], ...] = (
        ("Does one rung, chosen on training prompts, repeat as the model does?", one_rung),
        ("Which statistics make the model repeat?", _statistics),
        ("Does fitting the decoded law matter?", _law),
        ("Do counts alone repeat enough?", _counts),
        ("Does a walk know which prompt it continues?", _prompt),
        ("What could this run have found?", _findable),
    )
    made = onset_answers(sweeps(found))  # of a sweep this is the question
    for question, make in questions:
        made += _alike([(part, make(part, question)) for part in found])
    made += joint_answers(found)
    sums = calibrations(rows)
    forecast = [part for part in found if any(metric == "brier_reuse" for metric, _ in part.samples)]
    made += [calibrated(part, sums) for part in forecast]
    return made + [removed_by(part) for part in refined(found)]


def _alike(said: Sequence[tuple[Part, Answer]]) -> list[Answer]:
    """The answers to one question; strategies of a model that have none for the same reason share one."""
    reasons: dict[tuple[str, str], list[Part]] = {}
    for part, answer in said:
        if not answer.answered:
            reasons.setdefault((part.model, answer.text.removeprefix(part.what)), []).append(part)
    made, done = [], set()
    for part, answer in said:
        key = (part.model, answer.text.removeprefix(part.what))
        same = reasons.get(key, []) if not answer.answered else []
        if len(same) < 2:
            made.append(answer)
        elif key not in done:
            done.add(key)
            strategies = " and ".join([", ".join(one.strategy for one in same[:-1]), same[-1].strategy])
            made.append(Answer(answer.question, f"{part.model}, {strategies}{key[1]}", answered=False))
    return made


def _unanswered(question: str, part: Part, reason: str) -> Answer:
    return Answer(question, f"{part.what}: could not be answered: {reason}.", answered=False)


def _compared(verdict: Verdict, both: Paired, corrected: str = "") -> str:
    """Walks against the model, in words that follow a name: "repeat 0.12 [0.08, 0.16] less than the model".

    Args:
        verdict: of walks - model.
        both: the values behind it.
        corrected: by what the verdict was corrected, such as "Holm, 4 rungs".
    """
    found, word = verdict.interval, word_of(verdict, both)
    holm = ", the same on every prompt" if both.same else f" ({corrected})" if corrected else ""
    if both.equal:
        return f"repeat as much as the model on every one of {verdict.n} prompts"
    if word == "agrees":
        return (
            f"repeat as much as the model within {verdict.margin:g}{holm}: difference {with_unit(found, signed=True)}"
        )
    if word == "differs":
        return f"repeat {beyond(found)} {'more' if (found.value or 0) > 0 else 'less'} than the model{holm}"
    why = f", {verdict.missing}" if verdict.missing else ""
    shown = f"difference {with_unit(found, signed=True)}{why}"
    return f"are neither shown to differ from the model nor to agree within {verdict.margin:g}{holm}: {shown}"


def _statistics(part: Part, question: str) -> Answer:
    """The first rung that agrees, and the steps of the ladder that change how much walks repeat."""
    rungs = [name for name in part.rungs if part.sample(METRIC, part.rung(name)).value is not None]
    if not rungs:
        return _unanswered(question, part, f"no walk of {LOGIT} has a continuation of four tokens or more")
    both = {name: part.against_model(METRIC, part.rung(name)) for name in rungs}
    every = judged_together([part.verdict(METRIC, part.rung(name)) for name in rungs])
    judged = dict(zip(rungs, every, strict=True))
    words = {name: word_of(judged[name], both[name]) for name in rungs}
    agreeing = [name for name in rungs if words[name] == "agrees"]
    real = part.interval(METRIC, part.fixed(MODEL))
    decided = any(word != "undecided" for word in words.values())
    said = "the model repeats" if decided else "not decided: the model repeats"
    text = f"{part.what}: {said} {with_unit(real)} of its 4-grams (seq_rep_4). "
    many = f"Holm, {len(rungs)} rung{'s' if len(rungs) > 1 else ''}"
    if agreeing:
        name = agreeing[0]
        lowest = "" if name == part.rungs[0] else ", the lowest rung that agrees,"
        text += f"Walks of {LOGIT}, {part.up_to(name)}{lowest or ','} "
        text += f"{_compared(judged[name], both[name], many)}.{_vacuous(real, part.margin(METRIC))}"
    else:
        name = min(rungs, key=lambda name: abs(judged[name].interval.value or 0.0))
        text += f"No rung is shown to agree; walks of the closest, {part.up_to(name)}, "
        text += f"{_compared(judged[name], both[name], many)}."
    text += _steps(part, rungs)
    return Answer(question, text, judged[name].interval, answered=decided)


def _vacuous(real: Interval, margin: float) -> str:
    """That agreement says little where the model hardly repeats."""
    most = real.high if real.high is not None else real.value
    if most is None or most > margin:
        return ""
    return f" The model repeats less than the margin of {margin:g}: a law that never repeats would agree too."


def _steps(part: Part, rungs: list[str]) -> str:
    """Which statistics change the repetition of walks when they are added, corrected together."""
    pairs = list(pairwise(rungs))
    if not pairs:
        return ""
    moves = [paired(*(part.sample(METRIC, part.rung(name)) for name in (b, a))).mean() for a, b in pairs]
    clear = beyond_chance([one.p() for one in moves])
    said = [
        f"{short_rung(added)} changes it by {with_unit(move.interval(), signed=True)}"
        for (_, added), move, beyond_it in zip(pairs, moves, clear, strict=True)
        if beyond_it
    ]
    if not said:
        return f" No step of the ladder is shown to change how much walks repeat{_many(pairs)}."
    return f" Adding {', '.join(said)}{_many(pairs)}."


def _many(pairs: Sequence[object]) -> str:
    """For how many steps the tests are corrected."""
    return f" (Holm, {len(pairs)} steps)" if len(pairs) > 1 else ""


def _law(part: Part, question: str) -> Answer:
    """The walks of a surrogate of the raw law, decoded afterwards, against those of one of the decoded law."""
    if part.one_law:
        return _unanswered(question, part, "the strategy leaves the model's distribution as it is, both laws are one")
    if set(part.laws) < {DECODED, RAW}:
        return _unanswered(question, part, f"only the {part.law} law was fitted")
    if part.shown is None:
        return _unanswered(question, part, f"{LOGIT} was not fitted")
    raw, decoded = part.rung(part.shown.rung, RAW), part.rung(part.shown.rung, DECODED)
    if not part.sample(METRIC, decoded).rows:
        return _unanswered(question, part, "no walks were judged")
    if not part.sample(METRIC, raw).rows:
        return _unanswered(question, part, "this run has no walks of the raw law")
    both = paired(part.sample(METRIC, raw), part.sample(METRIC, decoded))
    if both.n == 0:
        return _unanswered(question, part, "no prompt has walks of both laws of four tokens or more")
    found = both.mean().interval()
    gaps = [part.against_model(METRIC, one).mean().interval() for one in (decoded, raw)]
    text = (
        f"{part.what}: walks of {LOGIT}, {part.shown_rung}, differ from the model in seq_rep_4 by "
        f"{with_unit(gaps[0], signed=True)} when fitted to the decoded law and by {with_unit(gaps[1], signed=True)} "
        "when fitted to the raw law and decoded afterwards. "
    )
    clear = both.same or (found.low is not None and found.high is not None and found.low * found.high > 0)
    if both.equal:
        text += "Both laws give the same on every prompt."
    elif clear:
        text += f"The raw law repeats {beyond(found)} {'more' if (found.value or 0) > 0 else 'less'}"
        text += ", the same on every prompt." if both.same else "."
    else:
        text += f"No difference between the laws is shown ({with_unit(found, signed=True)}"
        text += f": {found.missing})." if found.missing else ")."
    return Answer(question, text, found, answered=both.same or found.low is not None)


def _counts(part: Part, question: str) -> Answer:
    """The walks of the rung that knows counts and nothing else of the context."""
    if not part.rungs or part.rungs[0] != COUNTS:
        return _unanswered(question, part, f"the first rung of the ladder is not {COUNTS} alone")
    source = part.rung(COUNTS)
    verdict, both = part.verdict(METRIC, source), part.against_model(METRIC, source)
    if both.n == 0:
        return _unanswered(question, part, "no prompt has walks and a continuation of four tokens or more")
    word = word_of(verdict, both)
    least = "no" if (verdict.interval.value or 0.0) < 0 else "more than enough"
    start = {"agrees": "yes", "differs": least, "undecided": "not decided"}[word]
    means = [part.interval(METRIC, one) for one in (source, part.fixed(MODEL))]
    text = (
        f"{part.what}: {start}. Walks of counts alone ({part.law} law) {_compared(verdict, both)} "
        f"(seq_rep_4 {with_unit(means[0])} against {with_unit(means[1])})."
    )
    text += _vacuous(means[1], part.margin(METRIC)) if word == "agrees" else ""
    return Answer(question, text, verdict.interval, answered=word != "undecided")


def _prompt(part: Part, question: str) -> Answer:
    """The energy skill over the model's continuations of other prompts."""
    if part.shown is None:
        return _unanswered(question, part, f"{LOGIT} was not fitted")
    energy = part.sample("energy_score", part.shown)
    if energy.value is None:
        return _unanswered(question, part, energy.reason or f"walks of {LOGIT} have no energy score")
    found = skill_of(part, part.shown)
    if found.value is None:
        return _unanswered(question, part, f"the energy score has no skill to give ({found.missing})")
    what = f"walks of {LOGIT}, {part.shown_rung}, have an energy skill of {with_unit(found, signed=True)} "
    what += "over the model's continuations of other prompts"
    if found.low is None or found.high is None:
        return Answer(question, f"{part.what}: {what}; {found.missing}.", found, answered=False)
    if found.low > 0:
        text = f"yes, {what}"
    elif found.high < 0:
        text = f"no, {what}: they are further away than the continuation of another prompt"
    else:
        text = f"not shown, {what}"
    return Answer(question, f"{part.what}: {text} ({_units(part)}).", found)


def _units(part: Part) -> str:
    prompts, groups = part.prompts
    return f"{prompts} held-out prompt{'s' if prompts != 1 else ''} in {groups} group{'s' if groups != 1 else ''}"


def _findable(part: Part, question: str) -> Answer:
    """The smallest difference that this run would have found, and the smallest margin it could have proved."""
    if part.shown is None:
        return _unanswered(question, part, f"{LOGIT} was not fitted")
    verdict = part.verdict(METRIC, part.shown)
    if verdict.findable is None or verdict.provable is None:
        return _unanswered(question, part, f"{verdict.missing or 'nothing was compared'} ({_units(part)})")
    small = "enough for" if verdict.provable <= part.margin(METRIC) else "too few for"
    text = (
        f"{part.what}: with {_units(part)}, a difference in seq_rep_4 of {rough(verdict.findable)} between walks "
        f"({part.shown_rung}) and the model would have been found with 80 % power in one test at 5 %, "
        f"and equal means would have been shown to agree within {rough(verdict.provable)}: {small} the margin "
        f"of {part.margin(METRIC):g}."
    )
    return Answer(question, text, Interval(verdict.findable, None, None, verdict.groups, "a power, not an estimate"))
