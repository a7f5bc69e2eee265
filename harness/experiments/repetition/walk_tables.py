"""Tables of walks: how much they repeat beside the model, and how well they know which prompt they continue."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.lazy import LazyRows
from harness.core.records import Cell, Column, Interval, Table
from harness.core.rows import MODEL, SHUFFLED
from harness.experiments._shared.leading import Leading
from harness.experiments.repetition.margins import MARGINS
from harness.experiments.repetition.parts import (
    FIXED,
    MEANS,
    Part,
    margins_of,
    one_law_note,
    paired,
    prompts_of,
    source_name,
)
from harness.experiments.repetition.sources import NEVER, Source
from harness.stats.equivalence import Verdict, judged_together
from harness.stats.power import FINDABLE, smallest_difference
from harness.stats.proper import skill

SCORES = ("energy_score", "crps_seq_rep_4", "window_energy", "winner_energy")
KEYS = ("model", "strategy", "law")


def _key(part: Part, source: Source) -> tuple[str, str, str]:
    return part.model, part.strategy, source.law or "–"


def walkers(part: Part, t0: int | None = None) -> list[Source]:
    """Surrogates that walked, from their first start unless another is given."""
    return part.sources("new_tokens", part.start if t0 is None else t0)


def verdicts(found: Sequence[Part]) -> list[tuple[Part, Source, str, Verdict]]:
    """Every measure of every walk against the model, corrected together by Holm's method."""
    places = [(part, source, measure) for part in found for source in walkers(part) for measure in MARGINS]
    every = judged_together([part.verdict(measure, source) for part, source, measure in places])
    return [(*place, verdict) for place, verdict in zip(places, every, strict=True)]


def walks_table(found: list[Part]) -> Table:
    """One line per source and measure."""
    sources = [(part, source) for part in found for source in (part.fixed(MODEL), *walkers(part))]
    lead = Leading(KEYS, [_key(part, source) for part, source in sources])

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        judged = {(part.what, source, measure): one for part, source, measure, one in verdicts(found)}
        for part, source in sources:
            for measure in MARGINS:
                first = [*lead.cells(_key(part, source)), measure, source_name(source), part.interval(measure, source)]
                one = judged.get((part.what, source, measure))
                gap: list[Cell] = [None] * 3
                if one is not None and one.interval.value is not None:
                    gap = [one.interval, one.word, one.findable]
                made.append([*first, *gap])
        return made

    margins = ", ".join(f"{measure} {margins_of(found, measure)}" for measure in MARGINS)
    start = max((part.start for part in found), default=0)
    later = f" Walks start after {start} of the model's own tokens." if start else ""
    note = one_law_note(found)
    return Table(
        "repetition.walks",
        f"How much walks repeat: {lead.same}",
        [
            *lead.columns,
            Column("measure", left=True),
            Column("surrogate", left=True),
            Column("mean", priority=3),
            Column("it - model", signed=True),
            Column("verdict", left=True, priority=1),
            Column("findable", priority=2),
        ],
        LazyRows(body),
        f"{prompts_of(found)}.{later}{note} verdict: agrees within the margin ({margins}), differs, or undecided, at "
        "5 % after Holm's correction over the table; where a difference is the same on every prompt nothing can be "
        "tested. findable: the smallest difference that one test would have found with 80 % "
        "power. above_half: more than half of the 4-grams are repeated. Differences are paired by prompt, with 95 % t "
        f"intervals over groups, corrected for skewness, of one figure each. {MEANS}",
    )


def skill_of(part: Part, source: Source, metric: str = "energy_score") -> Interval:
    """1 - score / score of the model's continuations of other prompts, over groups."""
    both = paired(part.sample(metric, source), part.sample(metric, part.fixed(SHUFFLED, source.t0)))
    return skill(both.values[0], both.values[1], both.groups)


def _no_room(found: Sequence[Part]) -> str:
    """Which strategies have no recovered shares, and why."""
    reasons: dict[str, list[str]] = {}
    for part in found:
        shares = [part.recovered("energy_score", source).share for source in walkers(part)[:1]]
        for share in shares:
            if share.value is None and share.missing:
                reasons.setdefault(share.missing, []).append(part.strategy)
    return "".join(f" None with {', '.join(dict.fromkeys(names))}: {reason}." for reason, names in reasons.items())


def scores_table(found: list[Part]) -> Table:
    """Proper scores, one line per source."""
    places = [(part, source) for part in found for source in part.sources("energy_score", part.start)]
    lead = Leading(KEYS, [_key(part, source) for part, source in places])

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        for part, source in places:
            energy, *others = (part.interval(metric, source) for metric in SCORES)
            framed = source.name in FIXED
            gain = None if source.name == SHUFFLED else skill_of(part, source)
            share = None if framed else part.recovered("energy_score", source).share
            made.append([*lead.cells(_key(part, source)), source_name(source), energy, gain, share, *others])
        return made

    one = list(dict.fromkeys(part.strategy for part in found if part.one))
    fixed = (
        f" With {', '.join(one)} the model has one continuation, a point: its ceiling is 0 by construction, and a law "
        "that varies is never right."
        if one
        else ""
    )
    return Table(
        "repetition.scores",
        f"Proper scores of walks: {lead.same}",
        [
            *lead.columns,
            Column("source", left=True),
            Column("energy_score"),
            Column("skill", priority=1),
            Column("recovered", "share", priority=2),
            *(Column(metric, priority=3 + place) for place, metric in enumerate(SCORES[1:])),
        ],
        LazyRows(body),
        f"{prompts_of(found)}. Less is better. energy_score: of seven figures, each in its standard deviations over "
        f"training texts. skill: 1 - its score / that of {FIXED[SHUFFLED]}. recovered: 0 is {FIXED[SHUFFLED]}, 1 the "
        f"model itself, by energy score.{_no_room(found)}{fixed} {FIXED[NEVER]} has no tokens of its own to compare."
        f"{one_law_note(found)} "
        f"{MEANS} skill and recovered: Fieller intervals over groups.",
    )


def warm_table(found: list[Part]) -> Table:
    """The walks against the model by where they take over."""
    warmed = [part for part in found if len(part.starts) > 1]
    places = [(part, source) for part in warmed for source in _by_source(part)]
    lead = Leading(KEYS, [_key(part, source) for part, source in places])

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        for part, source in places:
            repeats = part.sample("seq_rep_4", source)
            gap = part.against_model("seq_rep_4", source).mean().interval() if repeats.rows else None
            energy = part.interval("energy_score", source)
            gain = None if source.name == SHUFFLED else skill_of(part, source)
            first = [*lead.cells(_key(part, source)), source_name(source), source.t0]
            least = None if gap is None else smallest_difference(gap)
            made.append([*first, gap, energy, gain, energy.n, least])
        return made

    return Table(
        "repetition.warm",
        f"Walks that take over later: {lead.same}",
        [
            *lead.columns,
            Column("source", left=True),
            Column("t0", "tokens"),
            Column("seq_rep_4 - model", signed=True, priority=1),
            Column("energy_score"),
            Column("skill", priority=2),
            Column("groups", priority=3),
            Column("findable", priority=4),
        ],
        LazyRows(body),
        f"{prompts_of(warmed)} at the first t0. t0: tokens of the model's own text before a surrogate takes over; only "
        f"what comes later is judged. The null is {FIXED[SHUFFLED]}, the ceiling other seeds, which share no beginning "
        "and so are a ceiling at t0 = 0 only, unless the model has one continuation. skill: 1 - its score / that of "
        f"the null. 95 % intervals over groups. {FINDABLE}, of seq_rep_4.",
    )


def _by_source(part: Part) -> list[Source]:
    """All starts of one source beside each other; what was walked from the first start alone is left out."""
    found = part.sources("energy_score")
    later = {(one.law, one.name, one.rung) for one in found if one.t0 > part.start}
    found = [one for one in found if not one.law or (one.law, one.name, one.rung) in later]
    same = list(dict.fromkeys((one.law, one.name, one.rung) for one in found))
    return sorted(found, key=lambda one: (same.index((one.law, one.name, one.rung)), one.t0))
