"""What each entry of the ladder is worth: in nats when it is added to those before, and when all others stay."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.lazy import LazyRows
from harness.core.records import Cell, Column, Interval, Table
from harness.experiments._shared.leading import Leading
from harness.experiments.repetition.chosen import short_rung
from harness.experiments.repetition.parts import DIFFERENCES, Part, paired, prompts_of
from harness.experiments.repetition.settings import BASE, STATISTICS
from harness.experiments.repetition.sources import DECODED, LOGIT, Source
from harness.stats.power import FINDABLE, smallest_difference


def worth_table(found: Sequence[Part]) -> Table:
    """One line per model, strategy and entry, base transitions last.

    Args:
        found: all parts; those without fits that leave something out are passed over.
    """
    shown = [part for part in found if any(source.without for _, source in part.samples)]
    lead = Leading(("model", "strategy"), [(part.model, part.strategy) for part in shown])

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        for part in shown:
            for entry in (*part.rungs, BASE):
                added, removed = worth_when_added(part, entry), worth_when_removed(part, entry)
                if added.value is None and removed.value is None:
                    continue
                name = "base transitions" if entry == BASE else short_rung(entry)
                least = smallest_difference(removed)
                made.append([*lead.cells((part.model, part.strategy)), name, added, removed, least])
        return made

    return Table(
        "repetition.worth",
        f"What each statistic is worth, one step ahead: {lead.same}",
        [
            *lead.columns,
            Column("statistics", left=True),
            Column("when added", "nats", signed=True),
            Column("when removed", "nats", signed=True),
            Column("findable", "nats", priority=1),
        ],
        LazyRows(body),
        f"{prompts_of(shown)}; {LOGIT} fitted to the {DECODED} law. when added: fall of the log loss against the rung "
        "before; the first rung is compared with base transitions alone, their weight fitted. when removed: rise of "
        "the log loss of the last rung without them, all other weights fitted again; statistics that carry the same "
        "information are worth little each. Base transitions are removed with the statistics that read them. "
        f"{FINDABLE}, when removed. {DIFFERENCES}",
    )


def worth_when_added(part: Part, entry: str) -> Interval:
    """Fall of the log loss from the rung before to that of the entry; nothing for base transitions."""
    if entry not in part.rungs:
        return Interval(None, None, None, 0, "base transitions stand in every rung")
    place = part.rungs.index(entry)
    before = _rung(part.rungs[place - 1]) if place else _without(STATISTICS)
    return _fall(part, before, _rung(entry))


def worth_when_removed(part: Part, entry: str) -> Interval:
    """Rise of the log loss of the last rung when the entry is left out and all other weights are fitted again."""
    return _fall(part, _without(entry), _rung(part.rungs[-1]))


def _rung(name: str) -> Source:
    return Source(LOGIT, DECODED, name)


def _without(entry: str) -> Source:
    return Source(LOGIT, DECODED, without=entry)


def _fall(part: Part, before: Source, after: Source) -> Interval:
    """How much less log loss, paired by prompt."""
    return paired(part.sample("log_loss", before), part.sample("log_loss", after)).mean().interval()
