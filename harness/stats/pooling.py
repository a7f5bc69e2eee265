"""From rows to figures: which rows belong to one figure, what its units are, and how two figures differ.

A unit is what was drawn at random: a prompt; where prompts are drawn anew in every repetition, or a metric has no
prompts, the repetition. Everything measured on one unit is averaged first. Where prompts have groups, a figure is still
the mean over prompts, but groups are resampled: intervals, tests and their `n` are over groups. What a run measured
once for each head, over all its prompts together, is averaged over heads without an interval: all heads were read, none
was drawn at random.
What declares itself pooled="explained" is pooled from the rows of prompts: 1 - sum KL / sum KL of the reference, as in
every table; it is missing where the reference alone is right to rounding, and there is nothing to explain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.declarations import MeasureDeclaration
from harness.core.records import Interval
from harness.stats.differences import Pooled, paired_p, paired_pooled_difference, two_sample_difference, two_sample_p
from harness.stats.explained import FLAT, complement
from harness.stats.intervals import FEWEST_UNITS, ratio_interval, ratio_intervals
from harness.stats.joint import Spread, paired_spread, two_sample_spread

NOT_DRAWN = "measured once over all prompts: heads are not drawn at random"
SEED = 0  # of the bootstrap: the same rows give the same figures
REPEATS = ("real_seed",)  # factors of `condition` that are averaged over
FACTORS = (
    "experiment", "model", "revision", "strategy", "layer", "head", "surrogate", "split", "metric", "fold", "prompt",
    "group",
)  # fmt: skip
CELL = ("experiment", "model", "strategy", "surrogate", "condition", "split", "metric")


@dataclass(frozen=True)
class Sample:
    """One figure: the contribution of each of its units.

    Attributes:
        units: the names of the units that have a value.
        pooled: their sums; None where no unit has a value.
        complement: the figure is 1 minus the pooled one.
        rows: how many rows it is made of.
        missing: how many of them have no value.
        reason: the first reason for that.
        drawn: False where the units are heads, of which none was drawn at random: then there is no interval.
        groups: of each unit, which are resampled together; None where every unit is drawn by itself.
    """

    units: pd.Index
    pooled: Pooled | None
    complement: bool
    rows: int
    missing: int
    reason: str | None
    drawn: bool = True
    groups: np.ndarray | None = None

    @property
    def value(self) -> float | None:
        if self.pooled is None:
            return None
        return 1.0 - self.pooled.value if self.complement else self.pooled.value

    def interval(self, level: float = 0.95) -> Interval:
        """The figure with its interval over units."""
        known: dict[float, Interval] = self.__dict__.setdefault("_intervals", {})
        if level not in known:
            known[level] = self._interval(level)
        return known[level]

    def _interval(self, level: float) -> Interval:
        if self.pooled is None:
            return Interval(None, None, None, 0, self.reason or "no units")
        if not self.drawn:
            return Interval(self.value, None, None, len(self.units), NOT_DRAWN)
        drawn = self.pooled.by(self.groups)
        found = ratio_interval(drawn.numerators, drawn.denominators, SEED, level)
        return complement(found) if self.complement else found

    def at(self, units: pd.Index) -> Pooled | None:
        """The sums of some of the units, in their order; None where nothing is left to divide by."""
        assert self.pooled is not None
        if units.equals(self.units):
            return self.pooled
        places = self.units.get_indexer(units)
        below = self.pooled.denominators[places]
        return Pooled(self.pooled.numerators[places], below) if below.sum() > 0 else None

    def groups_at(self, units: pd.Index) -> np.ndarray | None:
        """The groups of some of the units, in their order; None where every unit is drawn by itself."""
        if self.groups is None or units.equals(self.units):
            return self.groups
        return self.groups[self.units.get_indexer(units)]


@dataclass(frozen=True)
class Difference:
    """How a figure differs from another.

    Attributes:
        interval: a - b; `n` counts the pairs, or the units of the smaller sample.
        p: two-sided; None where there is nothing to test.
        better: share of pairs in which a is better, ties half; None without pairs or direction.
        paired: whether units were paired.
        units: the contribution of each pair to the difference, by the name of its unit; empty without pairs.
        spread: its standard error with degrees of freedom; None where there are too few units for one.
    """

    interval: Interval
    p: float | None
    better: float | None
    paired: bool
    units: pd.Series
    spread: Spread | None = None

    @property
    def identical(self) -> bool:
        """Do both sides agree in every unit, digit for digit?"""
        return self.paired and self.interval.n > 0 and bool((self.units == 0).all())

    @property
    def direction(self) -> int:
        """+1 or -1 where the interval excludes zero, or every one of 5 or more pairs differs by the same; else 0."""
        found = self.interval
        if found.value is None or found.value == 0:
            return 0
        direction = 1 if found.value > 0 else -1
        if found.low is not None and found.high is not None:
            return direction if found.low * found.high > 0 else 0
        spread = float(self.units.max() - self.units.min()) if len(self.units) else np.inf
        same = min(len(self.units), found.n) >= FEWEST_UNITS and spread <= 1e-9 * abs(found.value)
        return direction if same else 0


def prepare(samples: Iterable[Sample], level: float = 0.95) -> None:
    """Make the intervals of many figures together, which takes a fraction of the time; `Sample.interval` gives them.

    Args:
        samples: those that have an interval already are left as they are.
        level: nominal coverage.
    """
    missing = [one for one in samples if one.drawn and level not in vars(one).get("_intervals", {})]
    waiting = [(one, one.pooled.by(one.groups)) for one in missing if one.pooled is not None]
    made = ratio_intervals([(drawn.numerators, drawn.denominators) for _, drawn in waiting], SEED, level)
    for (one, _), found in zip(waiting, made, strict=True):
        vars(one).setdefault("_intervals", {})[level] = complement(found) if one.complement else found


def difference(
    a: Sample, b: Sample, metric: str, paired: bool, level: float = 0.95, figures: int | None = None
) -> Difference:
    """a - b, over the units they share or as two independent samples.

    Args:
        a, b: two figures of one metric.
        metric: decides which side of a pair is better.
        paired: whether units of the same name are the same unit.
        level: nominal coverage of the interval, of all figures where several are judged together.
        figures: how many are judged together; None where the interval is one of its own.
    """
    nothing = pd.Series(dtype=float)
    if a.pooled is None or b.pooled is None:
        return Difference(Interval(None, None, None, 0, "one side has no value"), None, None, paired, nothing)
    turn = -1.0 if a.complement else 1.0
    if not (a.drawn and b.drawn):
        return _of_heads(a, b, paired)
    if not paired:
        one, other = a.pooled.by(a.groups), b.pooled.by(b.groups)
        found = _turned(two_sample_difference(one, other, SEED, level, figures), turn)
        p = two_sample_p(one, other, SEED) if found.low is not None else None
        return Difference(found, p, None, False, nothing, two_sample_spread(one, other))
    common = a.units.intersection(b.units)
    if common.empty:
        return Difference(Interval(None, None, None, 0, "no unit on both sides"), None, None, True, nothing)
    x, y = a.at(common), b.at(common)
    if x is None or y is None:
        return Difference(Interval(None, None, None, 0, "nothing to divide by"), None, None, True, nothing)
    units = pd.Series(turn * (x.contributions() - y.contributions()), index=common)
    if np.array_equal(x.numerators, y.numerators) and np.array_equal(x.denominators, y.denominators):
        units[:] = 0.0
        return Difference(Interval(0.0, None, None, len(common), "no difference anywhere"), None, None, True, units)
    groups = a.groups_at(common)
    x, y = x.by(groups), y.by(groups)
    found = _turned(paired_pooled_difference(x, y, SEED, level, figures), turn)
    sign = registry.sign(metric)
    wins = units.to_numpy() * sign
    better = float(np.mean((wins > 0) + 0.5 * (wins == 0))) if sign else None
    return Difference(found, paired_p(x, y, SEED), better, True, units, paired_spread(x, y))


def _of_heads(a: Sample, b: Sample, paired: bool) -> Difference:
    """The difference of two figures whose units are heads: no interval and no test."""
    assert a.value is not None
    assert b.value is not None
    units, value, n = pd.Series(dtype=float), a.value - b.value, min(len(a.units), len(b.units))
    common = a.units.intersection(b.units)
    x, y = (a.at(common), b.at(common)) if paired and len(common) else (None, None)
    if x is not None and y is not None:
        turn = -1.0 if a.complement else 1.0
        units = pd.Series(turn * (x.contributions() - y.contributions()), index=common)
        value, n = turn * (x.value - y.value), len(common)
    return Difference(Interval(value, None, None, n, NOT_DRAWN), None, None, paired, units)


def _turned(found: Interval, turn: float) -> Interval:
    if turn > 0 or found.value is None:
        return found
    low, high = (None if end is None else -end for end in (found.high, found.low))
    return Interval(-found.value, low, high, found.n, found.missing)


def factors(condition: object) -> str | None:
    """A condition as a reader writes it, such as "K = 8, n = 6400"; None where there is none."""
    if condition is None:
        return None
    return ", ".join(f"{key} = {value}" for key, value in json.loads(str(condition)).items())


class Observed:
    """Rows made ready for pooling: a unit for every row, the factors of `condition` as columns of their own.

    Args:
        rows: of one or more runs; with a column `run` where there are several.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        frame = rows.reset_index(drop=True)
        codes, texts = pd.factorize(frame["condition"])
        conditions = [{key: value for key, value in json.loads(text).items() if key not in REPEATS} for text in texts]
        named = [json.dumps(found, sort_keys=True) if found else None for found in conditions]
        self.condition_factors = sorted({key for found in conditions for key in found})
        frame = frame.assign(
            **{
                f"condition.{key}": pd.Series([found.get(key) for found in conditions]).reindex(codes).to_numpy()
                for key in self.condition_factors
            },
            condition=pd.Series(named, dtype="string").reindex(codes).array,
            value=frame["value"].astype("Float64").astype(float),
            weight=1.0,
            queries=0.0,
            complement=False,
        )
        self.frame = _with_explained(frame.assign(**_units(frame)))

    @property
    def metrics(self) -> list[str]:
        return sorted(self.frame["metric"].unique())

    def factor(self, name: str) -> str | None:
        """The column of a factor such as `layer` or, out of `condition`, `K`; None where there is no such factor."""
        if name in FACTORS or (name in {"run", "seed", "condition"} and name in self.frame):
            return name
        return f"condition.{name}" if name in self.condition_factors else None

    def figure(self, **where: object) -> Interval:
        """One figure with its interval, pooled over everything that is not named.

        Args:
            **where: column = value, such as metric="kl", surrogate="counts"; only those rows.
        """
        frame = self.frame
        for column, value in where.items():
            frame = frame[frame[column] == value]
        return sample(frame).interval()

    def cells(self, by: Sequence[str] = CELL, **where: object) -> Iterator[tuple[tuple[object, ...], Sample]]:
        """Every combination of the columns `by` that occurs, in the order of the rows, with its sample.

        Args:
            by: columns of the frame; a missing value counts as a value, given as None.
            **where: column = value; only those rows.
        """
        frame = self.frame
        for column, value in where.items():
            frame = frame[frame[column] == value]
        keys, samples = _samples(frame, list(by))
        yield from zip(keys, samples, strict=True)


def sample(part: pd.DataFrame) -> Sample:
    """The sample of one figure, from its rows in an `Observed` frame."""
    _, samples = _samples(part, [])
    return samples[0] if samples else Sample(pd.Index([]), None, False, 0, 0, None)


def _samples(frame: pd.DataFrame, by: list[str]) -> tuple[list[tuple[object, ...]], list[Sample]]:
    """The combinations of the columns `by`, in the order of the rows, and the sample of each."""
    if frame.empty:
        return [], []
    cell = frame.groupby(by, sort=False, dropna=False).ngroup().to_numpy() if by else np.zeros(len(frame), dtype=int)
    count = int(cell.max()) + 1
    first = np.unique(cell, return_index=True)[1]
    columns = [frame[name].iloc[first] for name in by]
    keys = [tuple(None if pd.isna(value) else value for value in key) for key in zip(*columns, strict=True)]
    value, weight, queries = (frame[name].to_numpy(dtype=float) for name in ("value", "weight", "queries"))
    there = ~np.isnan(value)
    least = FLAT * np.bincount(cell[there], weights=queries[there], minlength=count)
    unit, names = pd.factorize(frame["unit"], sort=True)
    pairs, rows_of, place, sizes = np.unique(
        cell[there] * len(names) + unit[there], return_index=True, return_inverse=True, return_counts=True
    )
    grouped = frame["unit_group"].notna().to_numpy()[there][rows_of]
    group = np.where(grouped, frame["unit_group"].to_numpy()[there][rows_of], names[pairs % len(names)])
    above = np.bincount(place, weights=value[there], minlength=len(pairs))
    below = np.bincount(place, weights=weight[there], minlength=len(pairs))
    edges = np.searchsorted(pairs, np.arange(count + 1) * len(names))
    rows, filled = np.bincount(cell, minlength=count), np.bincount(cell[there], minlength=count)
    complement = frame["complement"].to_numpy(dtype=bool)[first]
    of_heads = np.bincount(cell, weights=frame["drawn"].to_numpy() == "head", minlength=count) > 0
    gone = np.flatnonzero(~there)
    reason_row = dict(zip(cell[gone][::-1], gone[::-1], strict=True))
    reasons = frame["missing"]
    samples = []
    for index in range(count):
        own = slice(edges[index], edges[index + 1])
        divide = 1 if complement[index] else sizes[own]
        sums, weights = above[own] / divide, below[own] / divide
        flat = bool(len(sums)) and float(weights.sum()) < least[index]
        pooled = Pooled(sums, weights) if len(sums) and float(weights.sum()) > 0 and not flat else None
        reason = str(reasons.iloc[reason_row[index]]) if index in reason_row else None
        reason = f"counts alone predict these queries to {FLAT:g} nats" if flat else reason
        units = pd.Index(names[pairs[own] % len(names)])
        missing = int(rows[index] - filled[index])
        drawn = not of_heads[index]
        groups = group[own] if grouped[own].any() else None
        flag = bool(complement[index])
        samples.append(Sample(units, pooled, flag, int(rows[index]), missing, reason, drawn, groups))
    return keys if by else [()], samples


def _units(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """The unit of each row, which was drawn at random: its name in `unit`, its kind in `drawn`, its group."""
    groups = pd.Series(None, index=frame.index, dtype=object)
    units = pd.Series("all", index=frame.index, dtype=object)
    drawn = pd.Series("unit", index=frame.index, dtype=object)
    read = [name for name in ("prompt", "group", "seed", "layer", "head") if name in frame]
    for _, part in frame[read].groupby(frame["experiment"], sort=False):
        named = part["prompt"].notna()
        seeds = part.loc[named, ["prompt", "seed"]].groupby("prompt")["seed"].nunique()
        nested = part["seed"].nunique() > 1 and not (seeds > 1).any() and part.loc[named, "seed"].nunique() != 1
        if nested:  # every prompt belongs to one repetition: that is what was drawn
            units[part.index] = _repetition(part)
            drawn[part.index] = "repetition"
            continue
        units[part.index[named]] = part.loc[named, "prompt"].astype(object)
        drawn[part.index[named]] = "prompt"
        if "group" in part and part["group"].notna().any():  # a prompt without one is a group of its own
            of_prompts = part.loc[named, "group"].fillna(part.loc[named, "prompt"])
            groups[part.index[named]] = of_prompts.astype(object)
        rest = part[~named]
        if rest.empty:
            continue
        heads = "layer " + rest["layer"].astype("string") + ", head " + rest["head"].astype("string")
        several = rest["seed"].nunique() > 1
        units[rest.index] = _repetition(rest) if several else heads.fillna("all").astype(object)
        drawn[rest.index] = "repetition" if several else heads.notna().map({True: "head", False: "unit"})
    return {"unit": units, "drawn": drawn, "unit_group": groups}


def _repetition(rows: pd.DataFrame) -> pd.Series:
    return ("repetition " + rows["seed"].astype("string").fillna("?")).astype(object)


def _with_explained(frame: pd.DataFrame) -> pd.DataFrame:
    """Put the rows of prompts in the place of the shares explained that they add up to, so that these can be pooled."""
    measured = set(frame["metric"].unique())
    for one in registry.measures().values():
        if one.pooled == "explained" and one.name in measured:
            frame = _with_parts(frame, one)
    return frame


def _with_parts(frame: pd.DataFrame, share: MeasureDeclaration) -> pd.DataFrame:
    """The same for one measure: its own rows are replaced where the experiment has rows of prompts to pool."""
    own = (frame["metric"] == share.name) & frame["prompt"].isna()
    of_prompts = (frame["metric"] == share.of) & frame["prompt"].notna()
    parts = frame[of_prompts & frame["experiment"].isin(frame.loc[own, "experiment"])]
    if parts.empty:
        return frame
    factors = ("run", "experiment", "model", "revision", "strategy", "layer", "head", "split", "prompt", "seed")
    same = [column for column in factors if column in frame]
    against = parts.loc[parts["surrogate"] == share.reference, [*same, "value", "n"]]
    others = parts[parts["surrogate"] != share.reference]
    pairs = others.merge(against, on=same, how="inner", suffixes=("", "_reference"))
    if pairs.empty:
        return frame
    # a surrogate whose KL is infinite somewhere explains nothing there: its figure has no value
    pairs["queries"] = pairs["n_reference"].astype(float)
    pairs["weight"] = pairs["value_reference"] * pairs["queries"]
    pairs["value"] = pairs["value"] * pairs["n"].astype(float)
    pairs = pairs.assign(metric=share.name, complement=True).reindex(columns=frame.columns)
    replaced = own & frame["experiment"].isin(pairs["experiment"])
    return pd.concat([frame[~replaced], pairs], ignore_index=True)
