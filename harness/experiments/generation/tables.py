"""Tables of the generation experiment: which surrogate repeats what the model repeats, and how closely."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.lazy import LazyRows
from harness.core.once import once_of
from harness.core.records import Cell, Column, Interval, Table
from harness.core.rows import MODEL
from harness.experiments._shared.leading import counted
from harness.experiments._shared.parts import FRAME, leading
from harness.experiments.generation.parts import Part, parts
from harness.experiments.generation.recovered import BASELINE, NO_ROOM, QUESTIONS, SIGNIFICANT, Recovered, recovered
from harness.stats.correlation import mean_spearman_interval
from harness.stats.explained import complement
from harness.stats.pooling import SEED, difference
from harness.stats.power import FINDABLE, smallest_difference

MEASURES = (
    "seq_rep_1",
    "seq_rep_2",
    "seq_rep_3",
    "seq_rep_4",
    "window_entropy",
    "loop_share",
    "loop_onset",
    "loop_period",
    "winner_size",
    "dominance",
)
HEADLINE_ROWS = 12
NOT_SHARED = "no prompt where both are defined"
BOOTSTRAP = "Intervals: 95 %, bootstrap over prompts."
OF_ERRORS = (
    "Recovered share: 0 is the model's continuation of another prompt, 1 the model with another seed. Errors: "
    "1 - winner_jaccard (who), dominance_area (when), |it - model| of seq_rep_4 (how much), and their sum (all). "
    f"No value: {NO_ROOM}."
)


def tables(rows: pd.DataFrame) -> list[Table]:
    """All tables of the experiment, the headline first.

    Args:
        rows: of the experiment, from one run.
    """
    found = parts(rows)
    if not found:
        return []
    shares = [recovered(part) for part in found]
    made = [
        _best(found, shares),
        _in_context(found),
        _next_token(found),
        _agreement(found),
        _recovered(found, shares),
        _winners(found),
        _timing(found),
    ]
    if any(part.interval("mean_field_jaccard", name).n for part in found for name in part.surrogates):
        made.append(_mean_field(found))
    if any(metric == "kl_with_escape" for part in found for metric, _ in part.samples):
        made.append(_leaving(found))
    if any(part.named for part in found):
        made.append(_named(found))
    return made


def _prompts(found: list[Part]) -> str:
    """How many prompts were continued, and how many the model ended at once."""
    ended = [part.prompts - part.continued for part in found]
    text = counted([part.continued for part in found], "held-out prompt")
    if not any(ended):
        return text
    most = max(ended)
    return (
        f"{text}; {'up to ' if min(ended) < most else ''}{most} other{'s' if most > 1 else ''} the model ends at once"
    )


def _fixed(found: list[Part]) -> str:
    """Which ceilings are perfect by construction."""
    names = list(dict.fromkeys(part.strategy for part in found if part.one_continuation))
    if not names:
        return ""
    return f" With {', '.join(names)} the model has one continuation: its ceiling is perfect by construction."


def _best(found: list[Part], shares: list[Recovered]) -> Table:
    """The answer in one line per model and strategy."""
    lead = leading(found)
    body: list[list[Cell]] = []
    for part, of in list(zip(found, shares, strict=True))[:HEADLINE_ROWS]:
        best, counts = of.best, of.of(BASELINE)
        cells: list[Cell] = [None, None, None if counts is None else counts.all, None]
        if best is not None:
            cells = [best.surrogate, best.all, cells[2], len(of.ties)]
        body.append([*lead.cells(part.key), *cells])
    left_out = len(found) - len(body)
    more = f" {left_out} more lines are in generation.recovered." if left_out else ""
    return Table(
        "generation.best",
        f"Which surrogate repeats what the model repeats? {lead.same}",
        [
            *lead.columns,
            Column("best", left=True),
            Column("recovered", "share"),
            Column(f"by {BASELINE}", "share", priority=2),
            Column("ties", priority=1),
        ],
        body,
        f"{_prompts(found)}. best: least error over winners, their timing and repetition, picked on the same prompts. "
        f"recovered: 0 is the model's continuation of another prompt, 1 the model itself; no value: {NO_ROOM}. ties: "
        f"others not significantly worse (sign-flip tests, Holm, p > {SIGNIFICANT}). {BOOTSTRAP}{_fixed(found)}{more}",
        headline=True,
    )


def _in_context(found: list[Part]) -> Table:
    lead = leading(found)
    body = [[*lead.cells(p.key), i := p.interval("in_context_mass", MODEL), i.n] for p in found]
    return Table(
        "generation.in-context",
        f"Probability on tokens of the context: {lead.same}",
        [*lead.columns, Column("in_context_mass", "share"), Column("prompts")],
        body,
        f"The part of its behaviour that a chain on the context can describe. {BOOTSTRAP}",
    )


def _next_token(found: list[Part]) -> Table:
    lead = leading(found)
    measures = ("kl", "total_variation", "top_token")
    body = [
        [*lead.cells(part.key), name, *(part.interval(measure, name) for measure in measures)]
        for part in found
        for name in part.surrogates
    ]
    numbers = [part.interval("in_context_mass", MODEL).n for part in found]
    return Table(
        "generation.next-token",
        f"Next tokens, restricted to the context: {lead.same} against its surrogates",
        [
            *lead.columns,
            Column("surrogate", left=True),
            Column("kl", "nats"),
            Column("total_variation", priority=2),
            Column("top_token", "share", priority=1),
        ],
        body,
        f"{counted(numbers, 'held-out prompt')}. {BOOTSTRAP}",
    )


@once_of
def difference_to_model(part: Part, surrogate: str, measure: str) -> Interval:
    """Surrogate - model, paired over the prompts where both are defined; seeds are averaged first.

    Args:
        part: one model and strategy.
        surrogate: a surrogate, or a row of the frame.
        measure: a metric that is defined for single continuations.
    """
    return difference(part.sample(measure, surrogate), part.sample(measure, MODEL), measure, paired=True).interval


def correlation_with_model(part: Part, surrogate: str, measure: str) -> Interval:
    """Spearman's rank correlation with the model over prompts, seed by seed and then averaged.

    A mean over seeds would be smoother than the single continuation that the ceiling has.

    Args:
        part: one model and strategy.
        surrogate: a surrogate, or a row of the frame.
        measure: a metric that is defined for single continuations.
    """
    real, other = part.of_model.get(measure), part.by_seed.get((measure, surrogate))
    if real is None or other is None:
        return Interval(None, None, None, 0, NOT_SHARED)
    common = real.index.intersection(other.index)
    if common.empty:
        return Interval(None, None, None, 0, NOT_SHARED)
    own = other.to_numpy(dtype=float)
    of_other = own[other.index.get_indexer(common)][:, ~np.isnan(own).all(axis=0)]
    of_model = real.to_numpy(dtype=float)[real.index.get_indexer(common)]
    return mean_spearman_interval(of_model, of_other.T, SEED)


def _agreement(found: list[Part]) -> Table:
    """One line per measure and what is compared with the model."""
    lead = leading(found)

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        for part in found:
            for measure in MEASURES:
                real = part.interval(measure, MODEL)
                made.append([*lead.cells(part.key), measure, MODEL, real, None, None, None, real.n])
                for name in part.compared:
                    beyond = difference_to_model(part, name, measure)
                    r = correlation_with_model(part, name, measure)
                    mean = part.interval(measure, name)
                    shown: list[Cell] = [mean, beyond, smallest_difference(beyond), r, beyond.n]
                    made.append([*lead.cells(part.key), measure, FRAME.get(name, name), *shown])
        return made

    return Table(
        "generation.agreement",
        f"Repetition: {lead.same} against its surrogates",
        [
            *lead.columns,
            Column("measure", left=True),
            Column("surrogate", left=True),
            Column("mean", priority=2),
            Column("it - model", signed=True),
            Column("findable", priority=4),
            Column("r", priority=1),
            Column("prompts", priority=3),
        ],
        LazyRows(body),
        f"{_prompts(found)}. it - model: paired by prompt; {FINDABLE}; r: Spearman's rank correlation with the model "
        "over prompts, none where a side is constant; prompts: where both have a value, which a loop seldom has. "
        f"{BOOTSTRAP}{_fixed(found)}",
    )


def _recovered(found: list[Part], shares: list[Recovered]) -> Table:
    lead = leading(found)
    body: list[list[Cell]] = [
        [*lead.cells(part.key), s.surrogate, s.all, *(s.each[q] for q in QUESTIONS), s.against_counts, s.against_best]
        for part, of in zip(found, shares, strict=True)
        for s in of.shares
    ]
    return Table(
        "generation.recovered",
        f"What each surrogate recovers of the distance from another prompt to the model itself: {lead.same}",
        [
            *lead.columns,
            Column("surrogate", left=True),
            Column("all", "share"),
            *(Column(question, "share", priority=2 + place) for place, question in enumerate(QUESTIONS)),
            Column(f"vs {BASELINE}", "p", priority=1),
            Column("vs best", "p", priority=1),
        ],
        body,
        f"{counted([of.prompts for of in shares], 'held-out prompt')}; the least error first. {OF_ERRORS} p: sign-flip "
        f"tests over prompts of the sum, corrected by Holm; the best was picked on the same prompts. {BOOTSTRAP}"
        f"{_fixed(found)}",
    )


def _sizes(found: list[Part]) -> list[int]:
    """The k for which the k most frequent tokens were compared."""
    prefix = "winner_jaccard_at_"
    names = {metric for part in found for metric, _ in part.samples if metric.startswith(prefix)}
    return sorted(int(name.removeprefix(prefix)) for name in names)


def _winners(found: list[Part]) -> Table:
    """One line per set of winners and what is compared with the model."""
    lead = leading(found)
    sets = {"90 %": "", **{f"top {k}": f"_at_{k}" for k in _sizes(found)}}
    body: list[list[Cell]] = []
    for part in found:
        for label, ending in sets.items():
            if not ending:
                size = part.interval("winner_size", MODEL).value
                body.append([*lead.cells(part.key), label, MODEL, None, None, None, size])
            for name in part.compared:
                jaccard = part.interval(f"winner_jaccard{ending}", name)
                others = [part.sample(f"winner_{what}{ending}", name).value for what in ("precision", "recall", "size")]
                body.append([*lead.cells(part.key), label, FRAME.get(name, name), jaccard, *others])
    return Table(
        "generation.winners",
        f"Which tokens win: {lead.same} against its surrogates",
        [
            *lead.columns,
            Column("winners", left=True),
            Column("surrogate", left=True),
            Column("jaccard"),
            Column("precision", priority=2),
            Column("recall", priority=2),
            Column("size", "tokens", priority=1),
        ],
        body,
        f"{_prompts(found)}. 90 %: smallest set with 90 % of the trailing window; top k: its k most frequent tokens, "
        "fewer where it holds fewer types. precision: share of a surrogate's winners that are the model's; recall: the "
        f"reverse. {BOOTSTRAP}{_fixed(found)}",
    )


def _timing(found: list[Part]) -> Table:
    lead = leading(found)
    body: list[list[Cell]] = []
    for part in found:
        for name in part.compared:
            area, error = (part.interval(metric, name) for metric in ("dominance_area", "lock_in_error"))
            body.append([*lead.cells(part.key), FRAME.get(name, name), area, error, error.n])
    columns = [
        *lead.columns,
        Column("surrogate", left=True),
        Column("dominance_area"),
        Column("lock_in_error", "tokens", priority=1),
        Column("prompts", priority=2),
    ]
    locks = any(metric == "lock_in_error" for part in found for metric, _ in part.samples)
    caption = "dominance_area: distance of the dominance curves of model and surrogate"
    if locks:
        caption += (
            "; lock_in_error: distance of the times from which the own winner sets dominate, over the prompts where "
            "both do, counted in the last column"
        )
    else:
        columns, body = columns[:-2], [row[:-2] for row in body]
    return Table(
        "generation.timing",
        f"When tokens win: {lead.same} against its surrogates",
        columns,
        body,
        f"{_prompts(found)}. {caption}. {BOOTSTRAP}{_fixed(found)}",
    )


def _mean_field(found: list[Part]) -> Table:
    lead = leading(found)
    body: list[list[Cell]] = []
    for part in found:
        for name in part.surrogates:
            jaccard = part.interval("mean_field_jaccard", name)
            if jaccard.n:
                others = [part.sample(f"mean_field_{what}", name).value for what in ("precision", "recall", "size")]
                body.append([*lead.cells(part.key), name, jaccard, *others, part.sample("winner_size", MODEL).value])
    return Table(
        "generation.mean-field",
        f"Winners that the mean field of a fitted chain predicts: {lead.same}",
        [
            *lead.columns,
            Column("chain of", left=True),
            Column("jaccard"),
            Column("precision", priority=1),
            Column("recall", priority=1),
            Column("predicted", "tokens", priority=2),
            Column("real", "tokens", priority=2),
        ],
        body,
        f"{_prompts(found)}. Predicted from the counts of the prompt alone; the mean field describes sampling at "
        f"temperature 1 with nothing cut off. {BOOTSTRAP}",
    )


def _named(found: list[Part]) -> Table:
    """Measures that the config names, such as a plugin's."""
    lead = leading(found)
    body: list[list[Cell]] = []
    units: dict[str, str] = {}
    for part in found:
        for metric in part.named:
            declared = registry.measure(metric)
            units[metric] = declared.unit if declared else ""
            for name in (MODEL, *part.surrogates, *FRAME):
                if (metric, name) in part.samples:
                    shown = FRAME.get(name, name)
                    body.append([*lead.cells(part.key), metric, shown, part.interval(metric, name)])
    about = ", ".join(f"{metric} ({unit})" for metric, unit in units.items())
    return Table(
        "generation.named-measures",
        f"Measures that the config names: {lead.same} against its surrogates",
        [*lead.columns, Column("measure", left=True), Column("surrogate", left=True), Column("value")],
        body,
        f"{about}. {_prompts(found)}. {BOOTSTRAP}",
    )


def _leaving(found: list[Part]) -> Table:
    lead = leading(found)
    body: list[list[Cell]] = []
    for part in found:
        body.append([*lead.cells(part.key), MODEL, complement(part.interval("in_context_mass", MODEL)), None])
        for name in part.surrogates:
            leaves, whole = (part.interval(metric, name) for metric in ("escape", "kl_with_escape"))
            body.append([*lead.cells(part.key), name, leaves, whole])
    return Table(
        "generation.leaving",
        f"Leaving the context one token ahead: {lead.same} against its surrogates",
        [*lead.columns, Column("surrogate", left=True), Column("leaves", "share"), Column("kl_with_escape", "nats")],
        body,
        "leaves: probability of a token that is not in the context. kl_with_escape: divergence over the tokens of the "
        f"context and anything else as one more outcome. {BOOTSTRAP}",
    )
