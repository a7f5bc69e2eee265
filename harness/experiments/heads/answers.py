"""What the rows of the experiment `heads` say, question by question, for every model and strategy."""

from __future__ import annotations

import pandas as pd

from harness.core.format import interval, listed, number, percent
from harness.core.once import among
from harness.core.records import Answer, Interval
from harness.experiments._shared.leading import counted
from harness.experiments._shared.sentences import beyond, not_beyond, not_found, testable
from harness.experiments.heads.parts import COUNTS, NO_COUNTS, Part, p_of_leads, parts
from harness.experiments.heads.shrinkage import LEVEL, Shrinkage, fits, shrinkages
from harness.experiments.heads.single_heads import Head, every_head
from harness.measures.head_kinds import KINDS
from harness.stats.contest import beyond_chance, p_of_zero
from harness.stats.intervals import FEWEST_UNITS
from harness.stats.pooling import difference

MOST = "Which surrogate explains most of what attention does beyond counting?"
LEAST = "Which heads are explained least?"
WORSE = "What is worse than counting?"
SHRUNK = "Is a fit worse than what it is shrunk to?"
NAMED = 3  # heads that one sentence lists
UNKNOWN = "no surrogate has a figure on every held-out prompt"


def answers(rows: pd.DataFrame) -> list[Answer]:
    """What the rows say, one answer per question, model and strategy, in the order of the questions.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    if not found:
        return [Answer(MOST, "Could not be answered: no head was scored on a held-out prompt.", answered=False)]
    heads = every_head(rows)
    return [
        *(_most(part) for part in found),
        *(_least(part, heads[part.key]) for part in found),
        *(_worse(part, heads[part.key]) for part in found),
        *(answer for model in dict.fromkeys(part.model for part in found) for answer in _shrunk(rows, model)),
    ]


def _unanswered(question: str, what: str, reason: str) -> Answer:
    return Answer(question, f"{what}: could not be answered: {reason}.", answered=False)


def _why(part: Part) -> str | None:
    """Why the explained share has no value; None where it has one."""
    if part.sample("kl", COUNTS).pooled is None:
        return NO_COUNTS
    if not part.ranked:
        reasons = [part.interval("explained", name).missing for name in part.surrogates if name != COUNTS]
        return next((reason for reason in reasons if reason), UNKNOWN)
    return None


def _left_out(part: Part) -> str:
    """The surrogates without a value somewhere, for the end of a sentence."""
    gone = [name for name in part.surrogates if part.sample("explained", name).missing]
    return f" Not ranked, as KL is missing somewhere: {', '.join(gone)}." if gone else ""


def _points(found: Interval) -> Interval:
    """A difference of shares in percentage points."""
    value, low, high = (None if end is None else 100 * end for end in (found.value, found.low, found.high))
    return Interval(value, low, high, found.n, found.missing)


def _most(part: Part) -> Answer:
    """The surrogate that explains most, and its lead over the runner-up."""
    if (why := _why(part)) is not None:
        return _unanswered(MOST, part.what, why)
    best, *others = part.ranked
    sample = part.sample("explained", best)
    found = sample.interval()
    if len(sample.units) < FEWEST_UNITS:
        reason = f"an interval needs {FEWEST_UNITS} held-out prompts, this run has {len(sample.units)}"
        reason += f". The largest figure is {percent(found)}, of {best}"
        return Answer(MOST, f"{part.what}: could not be answered: {reason}.", found, answered=False)
    units = f"{counted([part.heads], 'head')}, {counted([len(sample.units)], 'held-out prompt')}"
    text = f"{part.what}: {best} explains {percent(found)} of what attention does beyond counting ({units})."
    if not others:
        return Answer(MOST, f"{text} No other surrogate was ranked.{_left_out(part)}", found)
    lead = difference(sample, part.sample("explained", others[0]), "explained", paired=True)
    if lead.identical:
        text += f" {others[0]} explains the same on every prompt."
    elif lead.direction and beyond_chance(p_of_leads(part)[:-1])[0]:
        text += f" That is {beyond(_points(lead.interval), 'points')} more than {others[0]}, the runner-up."
    elif lead.direction:
        text += f" Runner-up: {not_beyond(_points(lead.interval), others[0], len(others), 'points')}."
    else:
        text += f" Runner-up: {not_found(_points(lead.interval), others[0], 'points')}."
    return Answer(MOST, text + _left_out(part), found, answered=testable(lead))


def _least(part: Part, heads: list[Head]) -> Answer:
    """The heads, and the kinds of heads, of which the best surrogate explains least."""
    if (why := _why(part)) is not None:
        return _unanswered(LEAST, part.what, why)
    known = [(head.most.value, head) for head in heads if head.most.value is not None]
    if not known:
        return _unanswered(LEAST, part.what, "no head has a figure of its own")
    known.sort(key=lambda pair: (pair[0], pair[1].layer, pair[1].head))
    last = known[0][1]
    named = [f"{head.name} ({percent(head.most)}, {head.best})" for _, head in known[:NAMED]]
    text = f"{part.what}: explained least, each by its best surrogate: {'head' if len(named) == 1 else 'heads'} "
    text += f"{listed(named)}."
    kinds = {kind: [head for _, head in known if head.kind == kind] for kind in KINDS}
    medians = {
        kind: part.median_of((str(head.best), head.layer, head.head) for head in own) for kind, own in kinds.items()
    }
    order = sorted((kind for kind in KINDS if medians[kind].value is not None), key=lambda k: (medians[k].value, k))
    if len(order) > 1:
        low, high = (
            f"{kind} heads ({percent(medians[kind])}, {counted([len(kinds[kind])], 'head')})"
            for kind in (order[0], order[-1])
        )
        text += f" Of the kinds, {low} are explained least and {high} most, in the median."
    return Answer(LEAST, text, last.most)


def _worse(part: Part, heads: list[Head]) -> Answer:
    """The surrogates that explain less than nothing, and the heads of which none explains anything."""
    if (why := _why(part)) is not None:
        return _unanswered(WORSE, part.what, why)
    found = {name: part.interval("explained", name) for name in part.ranked}
    if all(one.high is None for one in found.values()):
        reason = next((one.missing for one in found.values() if one.missing), UNKNOWN)
        return _unanswered(WORSE, part.what, reason)
    every = [*found, *(name for name in part.surrogates if name not in found and name != COUNTS)]
    tests = beyond_chance([p_of_zero(part.sample("explained", name)) for name in every])
    differs = dict(zip(every, tests, strict=True))
    worse = [
        f"{n} ({percent(one)})" for n, one in found.items() if differs[n] and one.high is not None and one.high < 0
    ]
    open_ = [
        f"{name} ({percent(one)})"
        for name, one in found.items()
        if one.low is not None and one.high is not None and (one.low <= 0 <= one.high or not differs[name])
    ]
    text = f"{part.what}: {listed(worse) if worse else 'no surrogate'} {'are' if len(worse) > 1 else 'is'} "
    text += "worse than counting."
    if open_:
        text += f" No difference to counting was found for {listed(open_)}."
    controls = [
        n for n in every if n not in found and differs[n] and (high := part.interval("explained", n).high) and high < 0
    ]
    if controls:
        named = [f"{name} ({percent(part.interval('explained', name))})" for name in controls]
        text += f" Controls that are: {listed(named)}."
    known = [head.most.value for head in heads if head.most.value is not None]
    none = sum(value <= 0 for value in known)
    if none:
        text += f" In {none} of {counted([len(known)], 'head')} no surrogate explains more than counting."
    elif known:
        text += f" In each of {counted([len(known)], 'head')} at least one surrogate explains more."
    return Answer(WORSE, text)


def _shrunk(rows: pd.DataFrame, model: str) -> list[Answer]:
    """Every fit of a model against what it is shrunk to, over all strategies."""
    present = set(rows.loc[among(rows, "model", model), "surrogate"].dropna().unique())
    made = []
    for fit, prior in fits().items():
        if fit not in present:
            continue
        found = shrinkages(rows)[model].get(fit)
        if found is None:
            reason = f"{prior} was not run" if prior not in present else f"no prompt has a KL of {fit} and of {prior}"
            made.append(_unanswered(SHRUNK, f"{model}, {fit}", reason))
        else:
            made.append(_against_prior(model, found))
    return made


def _against_prior(model: str, s: Shrinkage) -> Answer:
    heads, where = counted([s.heads], "head"), f"{s.head[0]}.{s.head[1]}"
    text = f"{model}: the KL of {s.fit} is larger than that of {s.prior} in {s.worse or 'none'} of {heads}"
    worst = f"{interval(s.difference, signed=True)} nats"
    if s.significant:
        text += f", beyond chance in {s.significant} (Holm, p <= {LEVEL}); worst is head {where}, {worst}."
    elif not s.testable:
        prompts = counted([s.prompts], "held-out prompt")
        text += f". Whether beyond chance could not be answered: {prompts} are too few for a test of {heads}."
    elif s.worse:
        text += ", beyond chance in none (sign-flip tests over prompts, Holm)."
    else:
        text += "."
    value, low, high = s.overall.value, s.overall.low, s.overall.high
    if value is not None and low is not None and high is not None and low * high > 0:
        more = "more" if value > 0 else "less"
        text += f" Over all heads its KL is {beyond(s.overall, 'nats')} {more}."
    elif value is not None and low is not None:
        text += f" Over all heads: {not_found(s.overall, s.prior, 'nats')}."
    elif value is not None:
        text += f" Over all heads its KL differs by {number(value, signed=True)} nats."
    return Answer(SHRUNK, text, s.overall, answered=bool(s.significant) or s.testable)
