"""`ccmc compare`: figures of two sides against each other, pair by pair where the data allow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from harness.analysis.comparability import Comparability, Mismatch, compare_manifests, refusal
from harness.analysis.sides import ANY_MODEL, Side
from harness.core import registry
from harness.core.errors import UsageError
from harness.core.format import number
from harness.core.records import Cell, Column, Interval, Table
from harness.core.rows import frames as frame_names
from harness.stats.contest import ALPHA
from harness.stats.pooling import CELL, Difference, Observed, Sample, difference, factors
from harness.stats.power import FINDABLE, smallest_difference
from harness.stats.significance import holm

MOVERS = 3  # named for each figure
MOVING_HEADS = 10


@dataclass(frozen=True)
class Line:
    """One figure of both sides.

    Attributes:
        experiment: that it comes from.
        figure: its factors but the metric, such as "heads greedy ccmc-fit".
        metric: its name.
        a, b: the figures of both sides with their intervals.
        difference: a - b.
        corrected: its p-value after Holm's correction for the number of lines; None where there is none.
    """

    experiment: str
    figure: str
    metric: str
    a: Interval
    b: Interval
    difference: Difference
    corrected: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Two sides, figure by figure."""

    a: Side
    b: Side
    comparability: Comparability
    lines: tuple[Line, ...]
    heads: tuple[tuple[str, Difference], ...]
    only_one: tuple[str, ...]


def compare(a: Side, b: Side, metrics: Sequence[str] = (), anyway: bool = False) -> Comparison:
    """Compare two sides.

    Args:
        a, b: the sides; differences are a - b.
        metrics: which; default every metric of which one direction is better.
        anyway: compare figures that do not mean the same.

    Returns:
        The comparison, p-values corrected together.

    Raises:
        UsageError: an unknown metric, nothing in common, or settings that change the meaning of a figure.
    """
    found = compare_manifests(a.manifest, b.manifest)
    if (why := refusal(found)) and not anyway:
        raise UsageError(f"{a.name} and {b.name} cannot be compared: {why}; --anyway compares them all the same")
    found = _between_sides(found, a, b)
    mine, theirs = Observed(a.rows), Observed(b.rows)
    registry.check_metrics(metrics, {*mine.metrics, *theirs.metrics})
    new, old = _figures(mine, metrics), _figures(theirs, metrics)
    lines = []
    for key in (key for key in new if key in old):
        named = dict(zip(CELL, key, strict=True))
        paired = found.paired(named["model"] == ANY_MODEL)
        x, y = new[key], old[key]
        made = difference(x, y, str(named["metric"]), paired)
        kind, name = str(named["experiment"]), str(named["metric"])
        lines.append(Line(kind, _figure(named), name, x.interval(), y.interval(), made))
    if not lines:
        raise UsageError(f"{a.name} and {b.name} have no figure in common; see `ccmc show` of each")
    tested = [index for index, line in enumerate(lines) if line.difference.p is not None]
    for index, p in zip(tested, holm([lines[i].difference.p or 0.0 for i in tested]), strict=True):
        lines[index] = replace(lines[index], corrected=float(p))
    same_model = a.model is not None and a.model == b.model
    heads = _heads(mine, theirs, lines) if same_model and found.same_prompts else ()
    lonely = [_figure(dict(zip(CELL, key, strict=True))) + f" {key[-1]}" for key in new.keys() ^ old.keys()]
    return Comparison(a, b, found, tuple(lines), heads, tuple(sorted(lonely)))


def _between_sides(found: Comparability, a: Side, b: Side) -> Comparability:
    """What differs between two runs, with their language models under their own names."""
    same_model = a.model == b.model
    said: list[Mismatch] = []
    for one in found.warnings:
        of_model = one.kind == "weights" and one.name == ANY_MODEL
        if of_model and same_model:
            said.append(replace(one, name=str(a.model)))
        elif not of_model and one.kind != "models":
            said.append(one)
    if not same_model:
        said.append(Mismatch("models", mine=a.model or "none", theirs=b.model or "none"))
    elif a.run.path.resolve() == b.run.path.resolve():
        said.append(Mismatch("same run"))
    return replace(found, warnings=tuple(said))


def _figures(seen: Observed, metrics: Sequence[str]) -> dict[tuple[object, ...], Sample]:
    wanted, framing = set(metrics), frame_names()
    kept = {}
    for key, sample in seen.cells(CELL):
        named = dict(zip(CELL, key, strict=True))
        if wanted:
            keep = named["metric"] in wanted
        else:
            keep = registry.sign(str(named["metric"])) != 0 and named["surrogate"] not in framing
        if keep:
            kept[key] = sample
    return kept


def _figure(named: dict[str, object]) -> str:
    parts = [named["experiment"], named["strategy"], named["surrogate"], factors(named["condition"])]
    if named["split"] not in (None, "held_out"):
        parts.append(named["split"])
    return " ".join(str(part) for part in parts if part is not None)


def _heads(mine: Observed, theirs: Observed, lines: list[Line]) -> tuple[tuple[str, Difference], ...]:
    """Single heads whose divergence moved most, in the surrogates of the comparison."""
    by, framing = (*CELL, "layer", "head"), frame_names()
    about = [one for one in registry.measures().values() if one.pooled == "explained" and one.headline_of]
    if not about:
        return ()
    experiment, metric = about[0].headline_of, about[0].of
    shown = {metric, about[0].name}
    if not any(line.metric in shown and line.experiment == experiment for line in lines):
        return ()
    new = dict(mine.cells(by, experiment=experiment, metric=metric))
    old = dict(theirs.cells(by, experiment=experiment, metric=metric))
    moved = []
    for key in new.keys() & old.keys():
        named = dict(zip(by, key, strict=True))
        x, y = new[key], old[key]
        if named["surrogate"] in framing or x.value is None or y.value is None or x.value == y.value:
            continue
        moved.append((abs(x.value - y.value), f"{_figure(named)} layer {named['layer']} head {named['head']}", x, y))
    moved.sort(key=lambda entry: (-entry[0], entry[1]))
    return tuple((name, difference(x, y, metric, paired=True)) for _, name, x, y in moved[:MOVING_HEADS])


def movers(found: Difference) -> str:
    """The units that differ most, by name."""
    units = found.units[found.units != 0]
    if units.empty:
        return "–"
    largest = units.reindex(units.abs().sort_values(ascending=False, kind="stable").index)[:MOVERS]
    return ", ".join(f"{name} {number(value, signed=True)}" for name, value in largest.items())


def _p(value: float | None) -> float | str | None:
    return value if value is None or value >= 0.0001 else "< 0.0001"


def _change(found: Difference) -> list[Cell]:
    """The difference, and the smallest that would have been found."""
    return ["identical" if found.identical else found.interval, smallest_difference(found.interval)]


def _wins(found: Difference) -> float | None:
    """Share of units in which the first side is better, percent."""
    return None if found.better is None else 100 * found.better


def better(line: Line) -> str | None:
    """Which side is better, where the difference is significant after Holm's correction and its interval excludes 0."""
    made = line.difference
    declared = registry.measure(line.metric)
    if line.corrected is None or line.corrected > ALPHA:
        return None
    if made.direction and abs(made.interval.value or 0.0) <= (declared.absolute if declared else 0.0):
        return "rounding"
    return {1: "A", -1: "B", 0: None}[registry.sign(line.metric) * made.direction]


def _pairing(lines: Sequence[Line]) -> tuple[list[Column], str]:
    """A column that says which differences are paired, where not all are alike; and a sentence where they are."""
    kinds = {line.difference.paired for line in lines}
    if len(kinds) > 1:
        return [Column("paired", priority=3)], "not paired: two samples, p by random permutations"
    return [], "paired by unit" if kinds == {True} else "not paired: two samples, p by random permutations"


def tables(found: Comparison) -> list[Table]:
    """A comparison as tables: figures, then heads that moved."""
    pairing, how = _pairing(found.lines)
    columns = [
        Column("figure", left=True),
        Column("metric", left=True),
        Column("A", priority=3),
        Column("B", priority=3),
        Column("A - B", signed=True),
        Column("findable", priority=6),
        Column("p (Holm)", priority=2),
        Column("A wins", "%", priority=4),
        Column("n", priority=2),
        *pairing,
        Column("better", left=True, priority=1),
        Column("largest movers", left=True, priority=5),
    ]
    rows: list[list[Cell]] = []
    for line in found.lines:
        made = line.difference
        figures: list[Cell] = [line.figure, line.metric, line.a, line.b, *_change(made), _p(line.corrected)]
        paired: list[Cell] = [made.paired] if pairing else []
        rows.append([*figures, _wins(made), made.interval.n, *paired, better(line), movers(made)])
    tests = sum(line.corrected is not None for line in found.lines)
    title = f"A = {found.a.name} against B = {found.b.name}"
    note = (
        f"Intervals: 95 %, bootstrap over units; differences {how}. p: random signs, corrected for {tests} tests by "
        "Holm's method. A wins: share of units in which A is better, ties half. Better: the side for which "
        "p (Holm) <= .05 and the interval of A - B excludes zero; rounding: by no more than processors differ. "
        f"{FINDABLE}, uncorrected."
    )
    shown = [Table("compare", title, columns, rows, note)]
    if found.heads:
        shown.append(_heads_table(found.heads))
    return shown


def _heads_table(heads: Sequence[tuple[str, Difference]]) -> Table:
    columns = [
        Column("head", left=True),
        Column("kl: A - B", signed=True),
        Column("findable", priority=3),
        Column("n", priority=1),
        Column("largest movers", left=True, priority=2),
    ]
    rows: list[list[Cell]] = [
        [name, found.interval, smallest_difference(found.interval), found.interval.n, movers(found)]
        for name, found in heads
    ]
    note = (
        "KL, A - B, paired by prompt; the largest of all heads, so their intervals are not corrected for choice. "
        f"{FINDABLE}."
    )
    return Table("compare.heads", "Heads that differ most", columns, rows, note)


def against_baseline(sides: Sequence[Side], baseline: Side, metrics: Sequence[str], anyway: bool) -> list[Comparison]:
    """Many sides against one; p-values are corrected over all of them together."""
    found = [compare(side, baseline, metrics, anyway) for side in sides]
    places = [(i, j) for i, c in enumerate(found) for j, line in enumerate(c.lines) if line.difference.p is not None]
    corrected = holm([found[i].lines[j].difference.p or 0.0 for i, j in places])
    lines = [list(c.lines) for c in found]
    for (i, j), p in zip(places, corrected, strict=True):
        lines[i][j] = replace(lines[i][j], corrected=float(p))
    return [replace(c, lines=tuple(own)) for c, own in zip(found, lines, strict=True)]


def baseline_table(found: Sequence[Comparison]) -> Table:
    """Many sides against one: a row for each side and figure."""
    lines = [line for comparison in found for line in comparison.lines]
    pairing, how = _pairing(lines)
    columns = [
        Column("run", left=True),
        Column("figure", left=True),
        Column("metric", left=True),
        Column("it", priority=3),
        Column("baseline", priority=3),
        Column("it - baseline", signed=True),
        Column("findable", priority=5),
        Column("p (Holm)", priority=1),
        Column("it wins", "%", priority=4),
        Column("n", priority=2),
        *pairing,
    ]
    rows: list[list[Cell]] = []
    for comparison in found:
        for line in comparison.lines:
            made = line.difference
            named: list[Cell] = [comparison.a.name, line.figure, line.metric, line.a, line.b, *_change(made)]
            paired: list[Cell] = [made.paired] if pairing else []
            rows.append([*named, _p(line.corrected), _wins(made), made.interval.n, *paired])
    tests = sum(line.corrected is not None for line in lines)
    note = (
        f"Intervals: 95 %, bootstrap over units; differences {how}. p corrected for {tests} tests by Holm's method. "
        f"It wins: share of units in which the run is better, ties half. {FINDABLE}, uncorrected."
    )
    return Table("baseline", f"Against {found[0].b.name}", columns, rows, note)


def warnings(found: Comparison) -> list[str]:
    """Differences between the runs that a reader must know, one line each."""
    c = found.comparability
    said = [*(f"not the same figure: {one.text}" for one in c.refusals), *(one.text for one in c.warnings)]
    if found.only_one:
        shown = ", ".join(found.only_one[:3]) + (" ..." if len(found.only_one) > 3 else "")
        said.append(f"{len(found.only_one)} figures on one side only: {shown}")
    return said


def frames(found: Sequence[Comparison]) -> pd.DataFrame:
    """The lines of comparisons as a table of numbers, for other programs."""
    return pd.DataFrame(
        [
            {
                "run": comparison.a.name,
                "baseline": comparison.b.name,
                "figure": line.figure,
                "metric": line.metric,
                "a": line.a.value,
                "b": line.b.value,
                "difference": line.difference.interval.value,
                "low": line.difference.interval.low,
                "high": line.difference.interval.high,
                "p": line.difference.p,
                "p_holm": line.corrected,
                "wins": line.difference.better,
                "n": line.difference.interval.n,
                "paired": line.difference.paired,
                "findable": smallest_difference(line.difference.interval),
            }
            for comparison in found
            for line in comparison.lines
        ]
    )
