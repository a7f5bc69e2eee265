"""`ccmc table`: a pivot of the rows of runs, each cell with its interval, the best marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from harness.core import registry
from harness.core.errors import UsageError, nearest
from harness.core.records import Cell as TableCell
from harness.core.records import Column, Interval, Table
from harness.core.registry import sign
from harness.core.rows import MODEL, RESEEDED, SHUFFLED, frames, is_infinite
from harness.stats.contest import clear, p_of_lead
from harness.stats.pooling import FACTORS, Observed, Sample, sample

BEST = "better than every other of its group, p <= .05 after Holm's correction for all of the table"
COMPETITORS = ("surrogate", "model", "run")  # a contest is between the values of the first of them that varies


@dataclass
class Cell:
    """One figure of a pivot; `best` where it beats all competitors (`harness.stats.contest`)."""

    sample: Sample
    interval: Interval
    best: bool = False


@dataclass
class Pivot:
    """A table of figures.

    Attributes:
        experiment, metrics: of the figures in it.
        note: how its figures were made.
        row_factors, column_factors: the factors of its rows and columns.
        rows, columns: the values of those factors, in order.
        cells: (row, column) -> figure; combinations that do not occur are absent.
    """

    experiment: str
    metrics: tuple[str, ...]
    row_factors: tuple[str, ...]
    column_factors: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    columns: list[tuple[str, ...]] = field(default_factory=list)
    cells: dict[tuple[tuple[str, ...], tuple[str, ...]], Cell] = field(default_factory=dict)
    note: str = ""

    @property
    def title(self) -> str:
        """Experiment and metrics."""
        return f"{self.experiment}: {', '.join(self.metrics)}"

    @property
    def headings(self) -> list[str]:
        """A heading for each column; numbers say what they count."""
        if not self.column_factors:
            return [", ".join(self.metrics)]
        return [
            " ".join(
                f"{factor} {value}" if _is_number(value) or value == "–" else value
                for factor, value in zip(self.column_factors, column, strict=True)
            )
            for column in self.columns
        ]

    def _table(self, columns: list[Column], rows: list[list[TableCell]], marked: set[tuple[int, int]]) -> Table:
        name = f"pivot.{self.experiment}"
        return Table(name, self.title, columns, rows, self.note, marked=frozenset(marked), mark=BEST)

    def wide(self) -> Table:
        """The figures in rows and columns."""
        columns = [Column(name, left=True) for name in self.row_factors] + [Column(name) for name in self.headings]
        rows: list[list[TableCell]] = []
        marked = set()
        for i, row in enumerate(self.rows):
            found = [self.cells.get((row, column)) for column in self.columns]
            rows.append([*row, *(None if cell is None else cell.interval for cell in found)])
            marked |= {(i, len(row) + j) for j, cell in enumerate(found) if cell is not None and cell.best}
        return self._table(columns, rows, marked)

    def long(self) -> Table:
        """One figure a line, for a terminal that is too narrow for the columns."""
        factors = (*self.row_factors, *self.column_factors)
        figure = "value" if "metric" in factors else ", ".join(self.metrics)
        rows: list[list[TableCell]] = []
        marked = set()
        for row in self.rows:
            for column in self.columns:
                cell = self.cells.get((row, column))
                if cell is None:
                    continue
                if cell.best:
                    marked.add((len(rows), len(factors)))
                rows.append([*row, *column, cell.interval])
        return self._table([*(Column(name, left=True) for name in factors), Column(figure)], rows, marked)


def frame(pivots: Sequence[Pivot]) -> pd.DataFrame:
    """One row per cell, for other programs: table, factors, value, low, high, units, missing rows, best."""
    factors = list(dict.fromkeys(name for p in pivots for name in (*p.row_factors, *p.column_factors)))
    records = [
        {
            "table": pivot.title,
            **dict(zip((*pivot.row_factors, *pivot.column_factors), (*row, *column), strict=True)),
            "value": cell.interval.value,
            "low": cell.interval.low,
            "high": cell.interval.high,
            "units": cell.interval.n,
            "missing_rows": cell.sample.missing,
            "best": int(cell.best),
        }
        for pivot in pivots
        for row in pivot.rows
        for column in pivot.columns
        if (cell := pivot.cells.get((row, column))) is not None
    ]
    return pd.DataFrame(records, columns=["table", *factors, "value", "low", "high", "units", "missing_rows", "best"])


def observe(runs: Sequence[Any]) -> Observed:
    """The rows of runs in one frame, with a column `run`: the names of their folders."""
    names = run_names(runs)
    frames = [run.rows.assign(run=name) for run, name in zip(runs, names, strict=True)]
    return Observed(pd.concat(frames, ignore_index=True))


def run_names(runs: Sequence[Any]) -> list[str]:
    """A short name for each run: its folder, with the folders above it where two are called the same.

    Raises:
        UsageError: one run is given twice.
    """
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UsageError(f"{twice.name!r} is given twice")
    depth = 1
    while len(names := ["/".join(path.parts[-depth:]) for path in paths]) > len(set(names)):
        depth += 1
    return names


def pivots(
    runs: Sequence[Any],
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    metrics: Sequence[str] = (),
    where: Sequence[str] = (),
) -> list[Pivot]:
    """One pivot for each experiment that has the metrics.

    Args:
        runs: opened runs.
        rows, columns: factors such as surrogate, layer, strategy, run, or one of `condition` such as K.
        metrics: several become a factor of the columns. None: the headline of each experiment.
        where: texts such as "layer=0" that rows must meet; `split` is held_out where the metric has that.

    Returns:
        The tables.

    Raises:
        UsageError: an unknown metric or factor (names the nearest), or no row left.
    """
    twice = [name for name in {*rows, *columns} if (*rows, *columns).count(name) > 1]
    if twice:
        raise UsageError(f"--rows and --columns: {min(twice)!r} is given twice")
    seen = observe(runs)
    registry.check_metrics(metrics, seen.metrics)
    seen.frame = _filtered(seen, where)
    pairable = _pairable(runs)
    made = []
    for experiment in seen.frame["experiment"].unique():
        about = registry.headline(experiment)
        if about is not None and about.better is None and not metrics:
            continue  # such as the lengths of texts, which nobody wants to read first
        part = seen.frame[seen.frame["experiment"] == experiment]
        wanted = list(metrics) or [_default_metric(part, experiment)]
        part = part[part["metric"].isin(wanted)]
        if "split=" not in "".join(where) and (part["split"] == "held_out").any():
            part = part[part["split"] == "held_out"]
        if len(part):
            made.append(_pivot(seen, part, str(experiment), list(rows), list(columns), wanted, pairable))
    if not made:
        raise UsageError("no row is left; see `ccmc show RUN` for what the run holds")
    return made


def _default_metric(part: pd.DataFrame, experiment: str) -> str:
    there = list(part["metric"].unique())
    about = registry.headline(experiment)
    if about is not None and about.name in there:
        return about.name
    return str(next((name for name in there if sign(name)), there[0]))


def _column(seen: Observed, name: str, option: str) -> str:
    column = seen.factor(name)
    if column is None:
        raise UsageError(f"{option} {name!r}{nearest(name, [*FACTORS, 'run', 'seed', *seen.condition_factors])}")
    return column


def _filtered(seen: Observed, where: Sequence[str]) -> pd.DataFrame:
    frame = seen.frame
    for text in where:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--where {text!r}: write it as factor=value")
        column = _column(seen, name, "--where")
        kept = frame[_labels(frame[column]) == value]
        if kept.empty:
            raise UsageError(f"--where {text!r}: no such row{nearest(value, set(_labels(frame[column])) - {'–'})}")
        frame = kept
    return frame


def _labels(values: pd.Series) -> pd.Series:
    """Values of a factor as texts; a dash where there is none."""
    if isinstance(values.dtype, pd.Int64Dtype):
        return values.astype("string").fillna("–").astype(str)
    return values.map(lambda value: "–" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value))


def _pairable(runs: Sequence[Any]) -> Callable[[pd.DataFrame, pd.DataFrame], bool]:
    """Whether units of the same name are the same in the rows of two cells, each of one run."""
    manifests = dict(zip(run_names(runs), (run.manifest for run in runs), strict=True))

    def pairable(a: pd.DataFrame, b: pd.DataFrame) -> bool:
        one, other = (set(part["run"]) for part in (a, b))
        if one == other:
            return True
        if len(one) > 1 or len(other) > 1:
            return False
        mine, theirs = manifests[one.pop()], manifests[other.pop()]
        of_model = set(a["model"].dropna()) <= {model["name"] for model in mine["models"]}
        from harness.analysis.comparability import compare_manifests  # takes long to import, and one run needs none

        return compare_manifests(mine, theirs).paired(of_model)

    return pairable


def _pivot(
    seen: Observed,
    part: pd.DataFrame,
    experiment: str,
    rows: list[str],
    columns: list[str],
    metrics: list[str],
    pairable: Callable[[pd.DataFrame, pd.DataFrame], bool],
) -> Pivot:
    varying = [name for name in seen.condition_factors if part[f"condition.{name}"].nunique(dropna=False) > 1]
    if not rows and not columns:
        rows = ["surrogate"]
        columns = ["strategy"] if part["strategy"].nunique() > 1 else []
        columns += varying
    given = {*rows, *columns}
    if "surrogate" not in given and part["surrogate"].nunique() > 1:
        rows = [*rows, "surrogate"]
    several = [name for name in ("run", "model") if name not in given and part[name].nunique() > 1]
    columns = [*several, *columns, *(["metric"] if len(metrics) > 1 and "metric" not in given else [])]
    factors = [_column(seen, name, "--rows") for name in rows] + [_column(seen, name, "--columns") for name in columns]
    named = part.assign(**{f"label.{column}": _labels(part[column]) for column in factors})
    keys = [f"label.{column}" for column in factors]
    pivot = Pivot(experiment, tuple(metrics), tuple(rows), tuple(columns))
    members: dict[tuple[str, ...], pd.DataFrame] = {}
    groups = named.groupby(keys, sort=False) if keys else [((), named)]
    for key, group in groups:
        members[tuple(str(part) for part in key)] = group
    for key, group in members.items():
        found = sample(group)
        pivot.cells[key[: len(rows)], key[len(rows) :]] = Cell(found, found.interval())
    pivot.rows = sorted({row for row, _ in pivot.cells}, key=_order(rows, named, keys[: len(rows)]))
    pivot.columns = sorted({column for _, column in pivot.cells}, key=_order(columns, named, keys[len(rows) :]))
    _mark_best(pivot, members, metrics, pairable)
    pivot.note = _note(pivot, part, {*rows, *columns}, metrics)
    return pivot


def _order(names: list[str], frame: pd.DataFrame, keys: list[str]) -> Callable[[tuple[str, ...]], tuple[Any, ...]]:
    """Numbers by size, surrogates by the ladder, all else as it comes."""
    places = []
    for name, key in zip(names, keys, strict=True):
        values = list(dict.fromkeys(frame[key]))
        if name == "surrogate":
            own = {MODEL, SHUFFLED, RESEEDED}
            ordered = [MODEL, SHUFFLED, *registry.ladder(set(values) - own), RESEEDED]
            values.sort(key=ordered.index)
        elif all(_is_number(value) for value in values):
            values.sort(key=float)
        places.append({value: index for index, value in enumerate(values)})
    return lambda row: tuple(place[value] for place, value in zip(places, row, strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _mark_best(
    pivot: Pivot,
    members: dict[tuple[str, ...], pd.DataFrame],
    metrics: list[str],
    pairable: Callable[[pd.DataFrame, pd.DataFrame], bool],
) -> None:
    names = [*pivot.row_factors, *pivot.column_factors]
    competitor = next((c for c in COMPETITORS if c in names and len({k[names.index(c)] for k in members}) > 1), None)
    if competitor is None:
        return
    place = names.index(competitor)
    contests: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key, part in members.items():
        frame = set(part["surrogate"].dropna()) & {MODEL, *frames()}
        if not (competitor == "surrogate" and frame):
            contests.setdefault((*key[:place], *key[place + 1 :]), []).append(key)
    leaders: list[Cell] = []
    tests: list[list[float]] = []
    for keys in contests.values():
        metric = str(members[keys[0]]["metric"].iloc[0])
        cells = [(pivot.cells[key[: len(pivot.row_factors)], key[len(pivot.row_factors) :]], key) for key in keys]
        ranked = sorted(
            ((cell, key) for cell, key in cells if cell.sample.value is not None and not _infinite(cell)),
            key=lambda entry: -sign(metric) * (entry[0].sample.value or 0.0),
        )
        if sign(metric) == 0 or len(ranked) < 2:
            continue
        (first, one), *rest = ranked
        leaders.append(first)
        tests.append(
            [
                p_of_lead(first.sample, cell.sample, sign(metric), pairable(members[one], members[key]))
                for cell, key in rest
            ]
        )
    for leader, wins in zip(leaders, clear(tests), strict=True):
        leader.best = wins


def _infinite(cell: Cell) -> bool:
    return is_infinite(cell.sample.reason)


def _note(pivot: Pivot, part: pd.DataFrame, given: set[str], metrics: list[str]) -> str:
    pooled = []
    for name in ("strategy", "layer", "head", "split"):
        if name not in given and (count := part[name].nunique()) > 1:
            pooled.append(f"{count} {'strategies' if name == 'strategy' else name + 's'}")
    counts = [cell.interval.n for cell in pivot.cells.values() if cell.interval.n] or [0]
    kinds = set(part["drawn"])
    units = str(max(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    over = f"{units} {next(iter(kinds)) if len(kinds) == 1 else 'unit'}{'s' if max(counts) != 1 else ''}"
    how = f"Intervals: 95 %, bootstrap over {over}."
    if kinds == {"head"}:
        how = f"Means over {over}, without intervals: no head was drawn at random."
    better = {1: "higher is better", -1: "lower is better", 0: "neither direction is better"}
    said = "; ".join(f"{name}: {better[sign(name)]}" for name in metrics)
    gone = int(part["value"].isna().sum())
    return (
        f"{said}. {'Pooled over ' + ', '.join(pooled) + '. ' if pooled else ''}"
        f"{how}"
        f"{f' {gone} of {len(part)} rows have no value.' if gone else ''}"
    )
