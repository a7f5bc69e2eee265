"""Tables of what causes repetition, at matched loss."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from harness.core.records import Cell, Column, Interval, Table
from harness.experiments._shared.leading import Leading, counted
from harness.experiments.causes.parts import (
    MEASURES,
    NOTHING,
    OFF,
    REPEATED,
    Family,
    Job,
    Part,
    parts,
    smallest_margin,
)
from harness.experiments.causes.settings import HUMAN, NATURAL, NOISE, OWN, SET_UP
from harness.stats.equivalence import Verdict

HEADLINE_ROWS = 12
FINDABLE = (
    "findable: the smallest true change that would have been found with 80 % power, at 5 % over all that is corrected "
    "together"
)
INTERVALS = "Intervals: 95 %, each for itself, over groups of prompts or texts."
SORT_WORDS: dict[str, str] = {HUMAN: "human-like text", OWN: "the model's own text"}
APART = f"Not compared: where that is more than {OFF:.0%} off its level and shown to be another."
MATCHED = f"Strengths are set on one half of the texts; rise: of the loss on the other half, nats per token. {APART}"
HALVES = f"Strengths are set on one half of the texts, and the loss is measured on the other. {APART}"


def tables(rows: pd.DataFrame) -> list[Table]:
    """All tables of the experiment, the headline first.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    if not found:
        return []
    made = [_changes(found), _all(found), _contrasts(found), _against(found), _losses(found), _heads(found)]
    return [table for table in made if table.rows]


def _leading(found: list[Part]) -> Leading:
    return Leading(("model", "strategy"), [part.key for part in found])


def prompts_of(found: list[Part]) -> str:
    """How many held-out prompts the parts have."""
    numbers = [len(part.written[REPEATED, NOTHING, context]) for part in found for context in part.contexts]
    return counted(numbers, "held-out prompt")


def verdict_words(found: list[Part]) -> str:
    """What the words of verdicts mean, for a caption."""
    margins = ", ".join(f"{m:g}" for m in sorted({part.margin for part in found}))
    return (
        f"differs: shown not to be 0; agrees: shown to be within {margins} (two one-sided tests); undecided: neither. "
        "Corrected together (Holm) over the interventions of one sort of text, level, context and strategy."
    )


def _verdict_cells(verdict: Verdict | None) -> list[Cell]:
    return [None, None] if verdict is None else [verdict.interval, verdict.word]


def _changes(found: list[Part]) -> Table:
    """Both contexts beside each other, at the level where most can be compared."""
    lead = _leading(found)
    shown = [part for part in found if part.headline][: HEADLINE_ROWS // 2]
    each = max(2, HEADLINE_ROWS // max(1, len(shown)))
    body: list[list[Cell]] = []
    said = []
    for part in shown:
        assert part.headline is not None
        sort, level = part.headline
        by = {context: part.verdicts((sort, level, context)) for context in (NATURAL, SET_UP)}
        made: list[list[Cell]] = []
        for name in part.names:
            if name not in by[NATURAL] and name not in by[SET_UP]:
                continue
            cells: list[Cell] = [name]
            for context in (NATURAL, SET_UP):
                cells += _verdict_cells(by[context].get(name))
            cells.append(max((v.findable for at in by.values() if (v := at.get(name)) and v.findable), default=None))
            made.append([*lead.cells(part.key), *cells])
        body += made[:each]
        before = ", ".join(f"{part.mean(REPEATED, NOTHING, c).value:.3f} {c}" for c in part.contexts)
        said.append(f"{part.what}: +{level:g} nats on {SORT_WORDS[sort]}; seq_rep_4 without: {before}.")
    return Table(
        "causes.changes",
        f"What changes the repetition of {lead.same}, at matched loss?",
        [
            *lead.columns,
            Column("done", left=True),
            Column("natural", "change", signed=True),
            Column("verdict", left=True, priority=1),
            Column("set up", "change", signed=True),
            Column("verdict", left=True, priority=1),
            Column("findable", priority=2),
        ],
        body,
        f"Change of seq_rep_4 against the model as it is, {prompts_of(found)}, paired. natural: the prompt is "
        f"continued; set up: a sentence of it, {_repeats(found)} times. {' '.join(said)} {HALVES} "
        f"{verdict_words(found)} {FINDABLE}, of the less exact context. {INTERVALS}",
        headline=True,
    )


def _repeats(found: list[Part]) -> str:
    return ", ".join(str(k) for k in sorted({part.repeats for part in found}))


def _jobs(part: Part, context: str) -> Iterator[tuple[Job, Family | None]]:
    """Everything that was written in a context: nothing done, the reference, and the interventions by family."""
    yield NOTHING, None
    if part.reference is not None:
        yield part.reference, None
    for family in part.families:
        if family[2] == context:
            for name in part.names:
                job = Job(name, family[0], family[1])
                if (REPEATED, job, context) in part.written:
                    yield job, family


def _all(found: list[Part]) -> Table:
    lead = _leading(found)
    body: list[list[Cell]] = []
    for part in found:
        for context in part.contexts:
            judged = {family: part.verdicts(family) for family in part.families}
            for job, family in _jobs(part, context):
                verdict = part.change(job, context) if job == part.reference else None
                rise: Interval | None = None
                word: str | None = None if verdict is None else verdict.word
                if family is not None and job.text is not None and job.level is not None:
                    rise = part.matched[job.name, job.text, job.level].report
                    verdict = judged[family].get(job.name)
                    word = "loss not matched" if verdict is None else verdict.word
                means = [part.mean(metric, job, context) for metric in MEASURES]
                cells: list[Cell] = [context, job.name, job.text, job.level, rise, means[0]]
                cells += [None, word, None, None] if verdict is None else [
                    verdict.interval, word, verdict.findable, smallest_margin(verdict),
                ]  # fmt: skip
                body.append([*lead.cells(part.key), *cells, *means[1:]])
    return Table(
        "causes.all",
        f"Everything that was done to {lead.same}",
        [
            *lead.columns,
            Column("context", left=True),
            Column("done", left=True),
            Column("text", left=True),
            Column("level", "nats"),
            Column("rise", "nats", priority=3),
            Column("seq_rep_4", priority=2),
            Column("change", signed=True),
            Column("verdict", left=True),
            Column("findable", priority=1),
            Column("margin that holds", priority=4),
            Column("loop_share", priority=5),
            Column("context_rep_4", priority=6),
            Column("winner_size", "tokens", priority=7),
        ],
        body,
        f"{prompts_of(found)}. text: on which the loss is matched: human (human-like) or own (the model's). {MATCHED} "
        f"{verdict_words(found)} The reference has no level, since its loss is infinite, and is judged alone. "
        f"{FINDABLE}. margin that holds: the smallest within which the change is shown to be 0. {INTERVALS}",
    )


def _contrasts(found: list[Part]) -> Table:
    lead = _leading(found)
    body: list[list[Cell]] = []
    for part in found:
        for sort, level in dict.fromkeys((sort, level) for sort, level, _ in part.families):
            natural, set_up = (part.verdicts((sort, level, context)) for context in (NATURAL, SET_UP))
            for name, verdict in part.contrasts(sort, level).items():
                cells: list[Cell] = [name, sort, level]
                cells += [one[name].interval if name in one else None for one in (natural, set_up)]
                cells += [verdict.interval, verdict.word, verdict.findable]
                body.append([*lead.cells(part.key), *cells])
    return Table(
        "causes.contexts",
        f"Is repetition that the prompt sets up changed as natural repetition is? {lead.same}",
        [
            *lead.columns,
            Column("done", left=True),
            Column("text", left=True),
            Column("level", "nats"),
            Column("natural", "change", signed=True, priority=1),
            Column("set up", "change", signed=True, priority=1),
            Column("difference", signed=True),
            Column("verdict", left=True),
            Column("findable"),
        ],
        body,
        "Changes of seq_rep_4 against the model as it is; difference: the change where the prompt sets repetition up "
        f"less that in natural text, prompt by prompt, {prompts_of(found)}. {verdict_words(found)} {FINDABLE}. "
        f"{INTERVALS}",
    )


def _against(found: list[Part]) -> Table:
    lead = _leading(found)
    body: list[list[Cell]] = []
    for part in found:
        for family in part.families:
            sort, level, context = family
            for name, verdict in part.against(family).items():
                cells: list[Cell] = [context, name, sort, level, verdict.interval, verdict.word, verdict.findable]
                body.append([*lead.cells(part.key), *cells])
    return Table(
        "causes.against-noise",
        f"Does it matter what raises the loss? seq_rep_4 less that under {NOISE} at the same loss: {lead.same}",
        [
            *lead.columns,
            Column("context", left=True),
            Column("done", left=True),
            Column("text", left=True),
            Column("level", "nats"),
            Column("difference", signed=True),
            Column("verdict", left=True),
            Column("findable"),
        ],
        body,
        f"Noise on the outputs of all MLPs raises the loss as much without aiming at anything. {prompts_of(found)}. "
        f"{verdict_words(found)} {FINDABLE}. {INTERVALS}",
    )


def _losses(found: list[Part]) -> Table:
    """How strengths were set; the same for all strategies of a model."""
    models = {part.model: part for part in reversed(found)}
    lead = Leading(("model",), [(model,) for model in models])
    body: list[list[Cell]] = []
    for model, part in models.items():
        for (name, sort, level), one in part.matched.items():
            note = one.missing or ("" if one.holds(level) else "not matched on the other half")
            cells: list[Cell] = [name, sort, level, one.strength, one.match, one.report, one.largest, note]
            body.append([*lead.cells((model,)), *cells])
    return Table(
        "causes.losses",
        f"How strong is what costs as much? {lead.same}",
        [
            *lead.columns,
            Column("done", left=True),
            Column("text", left=True),
            Column("level", "nats"),
            Column("strength"),
            Column("rise set", "nats", priority=1),
            Column("rise, other half", "nats"),
            Column("largest rise", "nats", priority=2),
            Column("note", left=True, priority=3),
        ],
        body,
        "text: human (human-like) or own (the model's at temperature 1). rise set: on the half of the texts that the "
        "strength was set on; largest rise: on that half, by any strength that was tried up to the full one (counts 1: "
        "all of log m; heads 1: only their mean output; recency 2; noise 4 times the outputs; penalties 9). "
        f"{INTERVALS}",
    )


def _heads(found: list[Part]) -> Table:
    models = {part.model: part for part in reversed(found)}
    lead = Leading(("model",), [(model,) for model in models])
    body: list[list[Cell]] = []
    for model, part in models.items():
        for name, layers in part.heads.items():
            text = " ".join(f"{layer}:{count}" for layer, count in layers.items())
            body.append([*lead.cells((model,)), name, sum(layers.values()), text])
    return Table(
        "causes.heads",
        f"Which heads are changed? {lead.same}",
        [*lead.columns, Column("done", left=True), Column("heads"), Column("layer:heads", left=True)],
        body,
        "Kinds are decided on training texts, by the attention on what they are named after: the heads with the "
        "highest scores where `top_heads` says how many, else those that it makes one of the kind. With `top_heads` a "
        "head may be of two kinds. Random heads are as many, of the same layers or those next to them.",
    )
