"""Comparisons with theory as records, and what is said about them: tables of claims, and an answer about verdicts.

A comparison is one pooled row: a measurement over repetitions, what theory predicts, and a verdict (see `claims`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.core.format import interval, number
from harness.core.records import Answer, Cell, Column, Interval, Table
from harness.experiments._shared.claims import POOLED
from harness.stats.intervals import FEWEST_UNITS
from harness.stats.power import FINDABLE, smallest_difference

RIGHT, WRONG, WITHOUT_INTERVAL = ("agrees", "holds"), ("differs", "does not hold"), "no interval"
MOST_ROWS = 12
LEVEL = 0.95
NOTE = (
    "Intervals: 95 %, bootstrap over repetitions, of shares exact. A prediction (=) agrees where it is inside the "
    "interval: one in twenty right predictions is outside by chance. A bound (≤), fixed beforehand, agrees where the "
    "largest value keeps it."
)


@dataclass(frozen=True)
class Comparison:
    """One measurement, beside what theory says of it.

    Attributes:
        experiment: its kind.
        metric, claim: the measured quantity, as a name and in words.
        surrogate: whose; None where it is nobody's.
        factors: the settings that vary within the claim, such as K or n.
        found: the measurement with its interval over repetitions.
        predicted: None where nothing is.
        bound: the largest allowed value; None where the prediction is a number.
        verdict: None where nothing is predicted.
    """

    experiment: str
    metric: str
    claim: str
    surrogate: str | None
    factors: dict[str, Any]
    found: Interval
    predicted: float | None
    bound: float | None
    verdict: str | None

    @property
    def right(self) -> bool:
        """It came out as predicted."""
        return self.verdict in RIGHT

    @property
    def wrong(self) -> bool:
        """It did not come out as predicted."""
        return self.verdict in WRONG

    @property
    def distance(self) -> float:
        """From the prediction, in widths of that side of the interval: above 1 it differs. Of a bound, its use.

        -1 where there is no interval to measure it with.
        """
        value, low, high = self.found.value, self.found.low, self.found.high
        if value is None or self.predicted is None:
            return -1.0
        if self.bound is not None:
            return value / self.bound if self.bound > 0 else float(value > 0) * np.inf
        if low is None or high is None:
            return {WITHOUT_INTERVAL: -0.5}.get(str(self.verdict), 0.0 if self.right else np.inf)
        gap, room = abs(value - self.predicted), value - low if self.predicted < value else high - value
        return gap / room if room > 0 else 0.0 if self.right else np.inf


def _plain(value: Any) -> float | None:
    return None if pd.isna(value) else float(value) + 0.0  # no -0


def measured(row: pd.Series) -> Interval:
    """The value of a row with its interval, and why it is missing."""
    missing = None if pd.isna(row["missing"]) else str(row["missing"])
    return Interval(_plain(row["value"]), _plain(row["low"]), _plain(row["high"]), int(row["n"]), missing)


def comparisons(rows: pd.DataFrame) -> list[Comparison]:
    """The pooled rows as records, in their order; none where a run has not come to its pooling."""
    found = []
    for _, row in rows[rows["split"] == POOLED].iterrows():
        factors = json.loads(row["condition"])
        claim, bound = str(factors.pop("claim")), factors.pop("bound", None)
        surrogate, verdict = (None if pd.isna(row[name]) else str(row[name]) for name in ("surrogate", "verdict"))
        found.append(
            Comparison(
                str(row["experiment"]), str(row["metric"]), claim, surrogate, factors, measured(row),
                _plain(row["prediction"]), None if bound is None else float(bound), verdict,
            )
        )  # fmt: skip
    return found


def picked(found: Iterable[Comparison], metric: str, **where: object) -> list[Comparison]:
    """The comparisons of one metric whose factors are as given; `surrogate=` picks one of those."""
    kept = [one for one in found if one.metric == metric]
    for name, value in where.items():
        kept = [one for one in kept if (one.surrogate if name == "surrogate" else one.factors.get(name)) == value]
    return kept


def furthest(found: Iterable[Comparison]) -> Comparison:
    """The comparison that is furthest from its prediction, in widths of its interval; without one, as it is.

    Raises:
        ValueError: there is none.
    """
    return max(found, key=lambda one: (one.distance, abs((one.found.value or 0.0) - (one.predicted or 0.0))))


def groups(found: Iterable[Comparison]) -> list[list[Comparison]]:
    """The comparisons that have a verdict, by experiment, claim and surrogate, in their order."""
    made: dict[tuple[str, str, str | None], list[Comparison]] = {}
    for one in found:
        if one.verdict is not None:
            made.setdefault((one.experiment, one.claim, one.surrogate), []).append(one)
    return list(made.values())


def place(factors: Mapping[str, Any]) -> str:
    """Factors in words, such as `K = 16, design = silent`."""
    return ", ".join(f"{k} = {v:,}" if isinstance(v, int) else f"{k} = {v}" for k, v in factors.items())


COMPARED = (Column("is"), Column("predicted"), Column("measured"), Column("agree"), Column("differ"))
UNJUDGED = Column("unjudged")


def _names(every: Sequence[Sequence[Comparison]], labels: Mapping[str, str]) -> list[str]:
    """The name of each group: its claim in short, and whose it is where several have the same claim."""
    short = [labels.get(group[0].metric, group[0].claim) for group in every]
    whose = [{"model": "trained", None: ""}.get(group[0].surrogate, str(group[0].surrogate)) for group in every]
    several = {name for name in short if len({w for s, w in zip(short, whose, strict=True) if s == name}) > 1}
    return [f"{name}, {who}" if name in several else name for name, who in zip(short, whose, strict=True)]


def _lines(every: Sequence[Sequence[Comparison]]) -> tuple[list[Column], list[list[Cell]]]:
    """Columns and lines, one per group: the comparison furthest from its prediction, and how all came out."""
    columns, lines = [*COMPARED, UNJUDGED], []
    for group in every:
        one, bound = furthest(group), group[0].bound is not None
        right, wrong = sum(c.right for c in group), sum(c.wrong for c in group)
        counts: list[Cell] = [right, wrong, len(group) - right - wrong]
        lines.append(["≤" if bound else "=", one.bound if bound else one.predicted, one.found, *counts])
    if not any(line[-1] for line in lines):
        columns, lines = columns[:-1], [line[:-1] for line in lines]
    return columns, lines


def headline(found: Sequence[Comparison], kind: str, labels: Mapping[str, str]) -> Table:
    """The claims of one experiment, one line each: those that did not come out as predicted first, at most twelve.

    Args:
        found: comparisons of one experiment.
        kind: of the experiment.
        labels: metric -> a short name, at most 36 characters; the claim itself where there is none.
    """
    every = groups(found)
    named = list(zip(_names(every, labels), every, strict=True))
    if len(every) > MOST_ROWS:
        named = sorted(named, key=lambda pair: (-any(one.wrong for one in pair[1]), -len(pair[1])))[:MOST_ROWS]
    columns, lines = _lines([group for _, group in named])
    body = [[name, *line] for (name, _), line in zip(named, lines, strict=True)]
    caption = (
        f"{len(named)} of {len(every)} claims, {sum(map(len, every))} comparisons (each in {kind}.claims). Predicted "
        f"and measured are those of the claim's comparison that is furthest from its prediction. {NOTE}"
    )
    title = f"{kind}: what the theory says and what was measured"
    return Table(f"{kind}.verdicts", title, [Column("claim", left=True), *columns], body, caption, headline=True)


def claims_table(found: Sequence[Comparison], kind: str) -> Table:
    """Every pooled measurement of one experiment beside its prediction; factors have columns of their own."""
    factors = list(dict.fromkeys(name for one in found for name in one.factors))
    columns = [Column("claim", left=True), Column("surrogate", left=True, priority=1)]
    words = {name for one in found for name, value in one.factors.items() if isinstance(value, str)}
    columns += [Column(name, priority=1, left=name in words) for name in factors]
    columns += [Column("measured"), Column("is", priority=1), Column("predicted"), Column("units", priority=2)]
    columns += [Column("verdict", left=True), Column("findable", priority=4)]
    columns += [Column("why missing", left=True, priority=3)]
    body: list[list[Cell]] = []
    for one in found:
        bound = one.bound is not None
        sign = None if one.predicted is None else "≤" if bound else "="
        least = None if one.predicted is None else smallest_difference(one.found)
        body.append(
            [
                one.claim, one.surrogate, *(one.factors.get(name) for name in factors), one.found, sign,
                one.bound if bound else one.predicted, one.found.n, one.verdict, least, one.found.missing,
            ]
        )  # fmt: skip
    empty = {index for index in range(len(columns)) if all(line[index] is None for line in body)}
    kept = [index for index in range(len(columns)) if index not in empty]
    lines = [[line[index] for index in kept] for line in body]
    title = f"{kind}: every measurement over the repetitions"
    shown = [columns[index] for index in kept]
    note = f"{NOTE} {FINDABLE}, from the prediction." if any(column.name == "findable" for column in shown) else NOTE
    return Table(f"{kind}.claims", title, shown, lines, note)


def verdict_table(rows: pd.DataFrame) -> Table:
    """The claims of all experiments among the rows, each over all its conditions."""
    every = groups(comparisons(rows))
    columns, lines = _lines(every)
    named = zip(every, _names(every, {}), lines, strict=True)
    body = [[group[0].experiment, name, *line] for group, name, line in named]
    caption = (
        "Each claim over all conditions of its experiment; predicted and measured are those of the comparison that is "
        f"furthest from its prediction. {NOTE}"
    )
    words = [Column("experiment", left=True), Column("claim", left=True)]
    return Table("verdicts", "What the theory says and what was measured", [*words, *columns], body, caption)


def counted(n: int, what: str) -> str:
    """A number of things, such as `1 comparison` or `12 comparisons`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def verdict_answer(found: Sequence[Comparison], labels: Mapping[str, str]) -> Answer:
    """How many comparisons came out as predicted, which did not, and what could not be judged and why.

    Args:
        found: comparisons of one experiment.
        labels: metric -> a short name; the claim itself where there is none.
    """
    every = [one for group in groups(found) for one in group]
    right, wrong = [one for one in every if one.right], [one for one in every if one.wrong]
    judged, open_ = len(right) + len(wrong), [one for one in every if not one.right and not one.wrong]
    question = "How many comparisons with the theory came out as predicted?"
    if not judged:
        few = _reasons(open_)
        return Answer(question, f"None of {counted(len(every), 'comparison')} could be judged: {few}.", answered=False)
    said = [f"{len(right)} of {counted(judged, 'comparison')} with the theory came out as predicted"]
    intervals = [one for one in right + wrong if one.bound is None]
    if intervals:
        chance = (1 - LEVEL) * len(intervals)
        said[0] += f"; about {chance:.1g} of the {len(intervals)} with an interval would differ by chance alone"
    if wrong:
        several = groups(found)
        counts = [(sum(one.wrong for one in group), len(group)) for group in several]
        every_name = zip(_names(several, labels), counts, strict=True)
        named = [f"{name} ({differ} of {total})" for name, (differ, total) in every_name if differ]
        parts = ["; ".join(named[first : first + 3]) for first in range(0, len(named), 3)]
        said += [f"{'Nor' if place else 'Not as predicted'}: {part}" for place, part in enumerate(parts)]
    if rooms := [room for one in intervals if one.right and (room := _room(one)) is not None]:
        said.append(
            f"Where they agree, the intervals leave room for a difference of {100 * np.median(rooms):.0f} % of the "
            f"prediction (median), at most {100 * max(rooms):.0f} %"
        )
    if open_:
        said.append(f"{counted(len(open_), 'comparison')} could not be judged: {_reasons(open_)}")
    return Answer(question, ". ".join(said) + ".")


def _reasons(found: Sequence[Comparison]) -> str:
    """Why comparisons have no verdict."""
    few = [one for one in found if one.verdict == WITHOUT_INTERVAL]
    most = max((one.found.n for one in few), default=0)
    said = [needs_repetitions(most)] if few else []
    others = (one.found.missing or "no value" for one in found if one not in few)
    return "; ".join([*said, *dict.fromkeys("no repetition has a value" if x == "no units" else x for x in others)])


def needs_repetitions(most: int) -> str:
    """Why there is no interval, where at most so many repetitions have a value."""
    return f"an interval needs {FEWEST_UNITS} repetitions with a value, and there {'is' if most == 1 else 'are'} {most}"


def _room(one: Comparison) -> float | None:
    """How far from its prediction the interval of a measurement reaches, as a share of it; None at 0."""
    low, high = one.found.low, one.found.high
    if low is None or high is None or not one.predicted:
        return None
    return max(high - one.predicted, one.predicted - low) / abs(one.predicted)


def against(one: Comparison) -> str:
    """A measurement and its prediction in words, such as `1.02 [0.97, 1.08], predicted 1.00`."""
    return f"{interval(one.found)}, predicted {number(one.predicted)}"


def answer(question: str, said: Sequence[str], behind: Sequence[Comparison]) -> Answer:
    """An answer in sentences; it says so where the comparisons behind it could not be judged.

    Args:
        question: as the answer states it.
        said: sentences.
        behind: the comparisons that they rest on, the most important one first.
    """
    if not behind:
        return Answer(question, "This run has not pooled its repetitions: its last unit has not run.", answered=False)
    open_ = [one for one in behind if not one.right and not one.wrong]
    if open_ == list(behind):
        said = [f"Not answered: {_reasons(open_)}.", *said]
    return Answer(question, " ".join(said), behind[0].found, open_ != list(behind))


def claims_tables(rows: pd.DataFrame, labels: Mapping[str, str]) -> list[Table]:
    """The claims of one experiment in short, and all of them; none before its repetitions are pooled.

    Args:
        rows: of one experiment of one run.
        labels: metric -> a short name, at most 36 characters; the claim itself where there is none.
    """
    found = comparisons(rows)
    kind = found[0].experiment if found else ""
    return [headline(found, kind, labels), claims_table(found, kind)] if found else []
