"""What each refinement of a rung removes: the same rung with and without it, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.core.lazy import LazyRows
from harness.core.records import Answer, Cell, Column, Interval, Table
from harness.core.rows import MODEL, RESEEDED
from harness.experiments._shared.leading import Leading
from harness.experiments._shared.sentences import with_unit
from harness.experiments.repetition.chosen import short_rung
from harness.experiments.repetition.parts import DIFFERENCES, Part, paired, prompts_of
from harness.experiments.repetition.sources import DECODED, Source
from harness.stats.contest import beyond_chance
from harness.stats.power import FINDABLE, smallest_difference

METRIC = "seq_rep_4"
SHOWN = ("log_loss", METRIC, "above_half", "loop_share", "new_tokens", "energy_score")
ONE_STEP = ("log_loss",)
"""Of these the sources have no start."""
QUESTION = "What do refinements of the ladder remove?"


def refined(found: Sequence[Part]) -> list[Part]:
    """The parts with refinements."""
    return [part for part in found if any(source.refined for _, source in part.samples)]


def refinements(part: Part) -> list[Source]:
    """The refined rungs whose walks were judged, from the first start, by refinement and then by rung."""
    own = [one for name, one in part.samples if name == "new_tokens" and one.refined and one.t0 == part.start]
    own = [one for one in own if one.rung in part.rungs]
    names = list(dict.fromkeys(one.refined for one in own))
    return sorted(own, key=lambda one: (names.index(one.refined), part.rungs.index(one.rung)))


def change(part: Part, metric: str, source: Source) -> Interval:
    """A figure of a refined rung less that of the rung itself, paired by prompt."""
    with_it, without = _both(metric, source)
    return paired(part.sample(metric, with_it), part.sample(metric, without)).mean().interval()


def _both(metric: str, source: Source) -> tuple[Source, Source]:
    """The refined rung and the rung itself, as sources of a metric."""
    own = replace(source, t0=0) if metric in ONE_STEP else source
    return own, replace(own, refined="")


def refinements_table(found: Sequence[Part]) -> Table:
    """One line per refined rung and figure.

    Args:
        found: all parts; those without refinements are passed over.
    """
    places = [(part, source) for part in refined(found) for source in refinements(part)]
    keys = [(part.model, part.strategy, source.refined, short_rung(source.rung)) for part, source in places]
    lead = Leading(("model", "strategy", "refinement", "rung"), keys)

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        for (part, source), key in zip(places, keys, strict=True):
            for metric in SHOWN:
                with_it, without = _both(metric, source)
                values = [part.sample(metric, one).value for one in (without, with_it)]
                moved = change(part, metric, source)
                row = [*lead.cells(key), metric, _models(part, metric), *values, moved, smallest_difference(moved)]
                made.append(row)
        return made

    return Table(
        "repetition.refinements",
        f"What refinements of a rung change: {lead.same}",
        [
            *lead.columns,
            Column("measure", left=True),
            Column("model's", priority=1),
            Column("without"),
            Column("with"),
            Column("with - without", signed=True),
            Column("findable", priority=2),
        ],
        LazyRows(body),
        f"{prompts_of(refined(found))}; {DECODED} law. without: the rung itself; with: its refinement. log_loss: one "
        "step ahead along the model's text, in nats; the model's is the entropy of its law. All others are of walks; "
        f"the model's energy score is that of its other seeds. {FINDABLE}. {DIFFERENCES}",
    )


def _models(part: Part, metric: str) -> float | None:
    if metric in ONE_STEP:
        return part.sample("entropy", Source(MODEL, DECODED)).value
    if metric == "energy_score":
        return part.sample(metric, part.fixed(RESEEDED)).value
    return part.sample(metric, part.fixed(MODEL)).value


def removed_by(part: Part) -> Answer:
    """How far walks of the last rung are from the model, and by how much each refinement of it moves them.

    Args:
        part: with refinements.
    """
    all_of_them = refinements(part)
    last = max((one.rung for one in all_of_them), key=part.rungs.index, default=None)
    own = [one for one in all_of_them if one.rung == last]
    if last is None or part.sample(METRIC, replace(own[0], refined="")).value is None:
        return Answer(QUESTION, f"{part.what}: could not be answered: no walks were judged.", answered=False)
    surplus = part.against_model(METRIC, replace(own[0], refined="")).mean().interval()
    moves = [paired(*(part.sample(METRIC, one) for one in _both(METRIC, source))).mean() for source in own]
    clear = beyond_chance([one.p() for one in moves])
    text = (
        f"{part.what}: walks {part.up_to(last)} differ from the model in seq_rep_4 by "
        f"{with_unit(surplus, signed=True)}. "
    )
    said = []
    for source, move, beyond_it in zip(own, moves, clear, strict=True):
        found = move.interval()
        left = part.against_model(METRIC, source).mean().interval()
        energy, loss = (change(part, metric, source) for metric in ("energy_score", "log_loss"))
        shown = f"changes it by {with_unit(found, signed=True)} to {with_unit(left, signed=True)}"
        shown = shown if beyond_it else f"is not shown to change it ({with_unit(found, signed=True)})"
        said.append(
            f"{source.refined} {shown}, the energy score by {with_unit(energy, signed=True)} and the log loss by "
            f"{with_unit(loss, signed=True)}"
        )
    many = f" (Holm, {len(own)} refinements)" if len(own) > 1 else ""
    decided = moves[0].interval() if len(own) == 1 else surplus
    return Answer(QUESTION, f"{text}{'; '.join(said)}{many}.", decided, answered=any(clear))
