"""Rankings: models of a folder of runs, and one model over its revisions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.analysis.comparability import compare_manifests
from harness.analysis.sides import ANY_MODEL, Side, sides_of
from harness.core import registry
from harness.core.errors import UsageError, nearest
from harness.core.records import Cell, Column, Interval, Table
from harness.core.registry import sign
from harness.core.rows import MODEL, frames
from harness.runs.directory import find_runs
from harness.runs.run import load_run
from harness.stats.contest import beyond_chance, p_of_lead
from harness.stats.pooling import Difference, Observed, Sample, difference, factors
from harness.stats.power import FINDABLE, smallest_difference

BY = ("experiment", "model", "strategy", "surrogate", "condition", "metric")


@dataclass(frozen=True)
class Entry:
    """One side's figure in a ranking."""

    side: Side
    experiment: str
    surrogate: str
    sample: Sample
    of_language_model: bool


def folder_sides(folder: Path) -> tuple[list[Side], list[str]]:
    """The sides of all complete runs in a folder, and a line for each run that is left out.

    Raises:
        UsageError: no such folder, or no complete run in it.
    """
    if not folder.is_dir():
        raise UsageError(f"leaderboard {str(folder)!r}: no such folder")
    found: list[Side] = []
    left_out = []
    for path in find_runs(folder):
        try:
            run = load_run(path)
        except UsageError as error:
            left_out.append(str(error))
            continue
        if run.state != "complete":
            left_out.append(f"{path} is {run.state}")
            continue
        found += sides_of(run, path.relative_to(folder).as_posix() if path != folder else path.name)
    if not found:
        raise UsageError(f"leaderboard {str(folder)!r}: no complete run there; start one with: ccmc run quickstart")
    return found, left_out


def _entries(sides: Sequence[Side], wanted: str | None) -> dict[tuple[str, str], list[Entry]]:
    """(experiment and other factors, metric) -> the figures of all sides and surrogates."""
    seen = [(side, Observed(side.rows)) for side in sides]
    if wanted is not None:
        registry.check_metrics([wanted], {name for _, rows in seen for name in rows.metrics})
    groups: dict[tuple[str, str], list[Entry]] = {}
    for side, rows in seen:
        held_out = set(rows.frame["metric"][rows.frame["split"] == "held_out"])
        for split in ("held_out", None):
            for key, sample in rows.cells(BY, **({"split": split} if split else {})):
                named = dict(zip(BY, key, strict=True))
                name = str(named["metric"])
                if (split is None) == (name in held_out):
                    continue
                about = registry.headline(str(named["experiment"]))
                if name != (wanted or (about.name if about else name)) or sample.value is None:
                    continue
                if named["surrogate"] in {None, MODEL, *frames()} or not sign(name):
                    continue
                parts = (named["experiment"], named["strategy"], factors(named["condition"]))
                place = " ".join(str(part) for part in parts if part is not None)
                entry = Entry(
                    side, str(named["experiment"]), str(named["surrogate"]), sample, named["model"] == ANY_MODEL
                )
                groups.setdefault((place, name), []).append(entry)
    return groups


def _paired(a: Entry, b: Entry) -> bool:
    """Are units of the same name the same on both sides?"""
    return a.side.run.path == b.side.run.path or compare_manifests(a.side.manifest, b.side.manifest).paired(
        a.of_language_model
    )


def _difference(a: Entry, b: Entry, name: str) -> Difference:
    return difference(a.sample, b.sample, name, _paired(a, b))


def leaderboard(sides: Sequence[Side], wanted: str | None = None, surrogate: str | None = None) -> list[Table]:
    """Rank sides by one metric, an experiment at a time.

    Args:
        sides: runs, or one model of a run each.
        wanted: a metric; default the headline of each experiment.
        surrogate: rank by this one; default each side's best.

    Returns:
        One table per experiment, strategy and condition. A rank is shared where neither the difference to the side
        above nor that to the first of the rank is significant, after Holm's correction for all pairs of the table.

    Raises:
        UsageError: an unknown metric or surrogate, one without a direction, or nothing to rank.
    """
    if wanted is not None and registry.measure(wanted) and not sign(wanted):
        raise UsageError(f"--metric {wanted!r}: neither direction is better, so nothing can be ranked by it")
    groups = _entries(sides, wanted)
    known = {entry.surrogate for entries in groups.values() for entry in entries}
    if surrogate is not None and surrogate not in known:
        raise UsageError(f"--surrogate {surrogate!r}{nearest(surrogate, known)}")
    made = []
    for (place, name), entries in groups.items():
        best: dict[str, Entry] = {}
        for entry in entries:
            held = best.get(entry.side.name)
            if surrogate in (None, entry.surrogate) and (held is None or _score(entry, name) > _score(held, name)):
                best[entry.side.name] = entry
        ranked = sorted(best.values(), key=lambda entry: (-_score(entry, name), entry.side.name))
        if ranked:
            made.append(_ranking(place, name, ranked))
    if not made:
        raise UsageError("nothing to rank; see `ccmc ls` for the runs")
    return made


def _score(entry: Entry, name: str) -> float:
    return sign(name) * (entry.sample.value or 0.0)


def _told_apart(name: str, ranked: list[Entry]) -> set[tuple[int, int]]:
    """The pairs of places that differ beyond chance, after Holm's correction for all pairs of the ranking."""
    pairs = [(i, j) for j in range(len(ranked)) for i in range(j)]
    tests = [p_of_lead(ranked[i].sample, ranked[j].sample, sign(name), _paired(ranked[i], ranked[j])) for i, j in pairs]
    return {pair for pair, differs in zip(pairs, beyond_chance(tests), strict=True) if differs}


def _ranking(place: str, name: str, ranked: list[Entry]) -> Table:
    rank, leader, apart = 1, 0, _told_apart(name, ranked)
    rows: list[list[Cell]] = []
    alike = []
    for index, entry in enumerate(ranked):
        step: Interval | None = None
        least: float | None = None
        if index:
            found = _difference(entry, ranked[index - 1], name)
            step, least = found.interval, smallest_difference(found.interval)
            alike.append(found.paired)
            if (index - 1, index) in apart or (leader, index) in apart:
                rank, leader = index + 1, index
        side = entry.side
        model = side.model if entry.of_language_model else None
        figures: list[Cell] = [entry.sample.interval(), step, least, len(entry.sample.units)]
        rows.append([rank, side.name, model, side.revision, entry.surrogate, *figures])
    columns = [
        Column("rank"),
        Column("run", left=True),
        Column("model", left=True, priority=2),
        Column("revision", left=True, priority=4),
        Column("surrogate", left=True),
        Column(name),
        Column("to the one above", signed=True, priority=1),
        Column("findable", priority=5),
        Column("n", priority=3),
    ]
    if not all(alike):
        columns.append(Column("paired", priority=3))
        rows = [[*row, pair] for row, pair in zip(rows, [None, *alike], strict=True)]
    better = "higher" if sign(name) > 0 else "lower"
    how = "paired by unit" if all(alike) else "paired by unit where the column says so, else of two samples"
    note = "Intervals: 95 %, bootstrap over units."
    if alike:
        note = (
            f"Intervals: 95 %, bootstrap over units, differences {how}. A shared rank: no difference is "
            "beyond chance (p > .05 by Holm's method for all pairs). "
            f"The best surrogate of a run is chosen on the same data. {FINDABLE}, uncorrected.{_other_settings(ranked)}"
        )
    title = f"{place}: {name} ({better} is better)"
    return Table(f"leaderboard.{place}.{name}".replace(" ", "-"), title, columns, rows, note)


def _other_settings(ranked: list[Entry]) -> str:
    """A warning where the figures of a ranking were made with other settings: how many, and the first two by name."""
    first, *others = ranked
    found = [compare_manifests(first.side.manifest, one.side.manifest).settings_of(first.experiment) for one in others]
    names = sorted({one.place for own in found for one in own})
    if not names:
        return ""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    differ = sum(bool(own) for own in found)
    return (
        f" Other settings than {first.side.name} in {differ} of {len(others)} runs: {', '.join(names[:2])}{more} "
        "(`ccmc compare A B --anyway` lists them)."
    )


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """A sorting key in which step2 comes before step10."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts)


def _name(side: Side) -> str:
    """The model without its revision."""
    return (side.model or "").rpartition("@")[0] or (side.model or "")


def revisions(
    sides: Sequence[Side], wanted: str | None = None
) -> list[tuple[Table, dict[str, list[tuple[str, Interval]]]]]:
    """One model over its revisions, in natural order.

    Args:
        sides: runs of one model, each with another revision.
        wanted: a metric; default the headline of each experiment.

    Returns:
        For each experiment a table, and the curve of each surrogate: (revision, figure) in order.

    Raises:
        UsageError: several models, a revision twice, or a single one.
    """
    of_model = [side for side in sides if side.model is not None]
    names = sorted({_name(side) for side in of_model})
    if len(names) != 1:
        raise UsageError(f"revisions: one model is needed, these runs have {', '.join(names) or 'none'}")
    labels = [_revision(side) for side in of_model]
    if len(set(labels)) < len(labels) or len(labels) < 2:
        raise UsageError(f"revisions: at least two different ones are needed, these runs have {', '.join(labels)}")
    ordered = sorted(of_model, key=lambda side: natural(_revision(side)))
    made = []
    for (place, name), entries in _entries(ordered, wanted).items():
        if not entries[0].of_language_model:
            continue
        present = {entry.surrogate for entry in entries}
        curves: dict[str, list[tuple[str, Interval]]] = {}
        rows: list[list[Cell]] = []
        for surrogate in registry.ladder(present):
            own = [entry for entry in entries if entry.surrogate == surrogate]
            curves[surrogate] = [(_revision(entry.side), entry.sample.interval()) for entry in own]
            for index, entry in enumerate(own):
                changes: list[Cell] = [None, None, None]
                if index:
                    step, whole = (_difference(entry, other, name).interval for other in (own[index - 1], own[0]))
                    changes = [step, whole, smallest_difference(step)]
                rows.append([surrogate, *curves[surrogate][index], *changes, len(entry.sample.units)])
        made.append((_revisions_table(names[0], place, name, rows), curves))
    return made


def _revisions_table(model: str, place: str, name: str, rows: list[list[Cell]]) -> Table:
    columns = [
        Column("surrogate", left=True),
        Column("revision", left=True),
        Column(name),
        Column("since the one before", signed=True, priority=1),
        Column("since the first", signed=True, priority=2),
        Column("findable", priority=4),
        Column("n", priority=3),
    ]
    note = "Intervals: 95 %, bootstrap over units; differences paired by unit where the prompts are the same. "
    note += f"{FINDABLE}, since the one before."
    title = f"{model}, {place}: {name} over revisions"
    return Table(f"revisions.{place}.{name}".replace(" ", "-"), title, columns, rows, note)


def _revision(side: Side) -> str:
    """The revision that the config names, such as step1000, which can be put in order; else the commit."""
    return (side.model or "").rpartition("@")[2] if "@" in (side.model or "") else side.revision or "–"
