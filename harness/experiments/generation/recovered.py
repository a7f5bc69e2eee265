"""Recovered share: how much of the distance between another prompt's continuation and the model's own is covered.

Floor: the model's continuation of another prompt. Ceiling: the model with another seed. For each of three questions
(which tokens win, when they do, how much is repeated) a surrogate's error lies in [0, 1]; the errors of all three
together are their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from harness.core.once import once_of
from harness.core.records import Interval
from harness.core.rows import MODEL
from harness.experiments.generation.parts import CEILING, FLOOR, Part, real_seeds
from harness.stats.differences import Pooled
from harness.stats.grouped import group_mean
from harness.stats.pooling import SEED, Observed, Sample, difference
from harness.stats.recovered import recovered_interval
from harness.stats.significance import holm

QUESTIONS = {"who": "winner_jaccard", "when": "dominance_area", "how much": "seq_rep_4"}
ALL = "all"
BASELINE = "counts"
SIGNIFICANT = 0.05
NO_ROOM = "no sign that the model agrees with itself better than with another prompt"
Errors = dict[tuple[str, str], Sample]


@dataclass(frozen=True)
class Share:
    """The recovered share of one surrogate; 0 is the floor, 1 the ceiling.

    Attributes:
        surrogate: its name.
        each: per question.
        all: of the three errors together.
        against_counts: p-value of its errors against those of `counts`; None for `counts` itself or without it.
        against_best: p-value of its errors against those of the best; None for the best.
    """

    surrogate: str
    each: dict[str, Interval]
    all: Interval
    against_counts: float | None
    against_best: float | None


@dataclass(frozen=True)
class Recovered:
    """The recovered shares of one model and strategy.

    Attributes:
        shares: of each surrogate, the one with the least error first.
        room: error of the floor less error of the ceiling, all questions together.
        prompts: how many have a value for everything.
    """

    shares: list[Share]
    room: Interval
    prompts: int

    @property
    def best(self) -> Share | None:
        """The surrogate with the least error; None where there is nothing to compare."""
        return self.shares[0] if self.shares and self.prompts else None

    @property
    def ties(self) -> list[str]:
        """The surrogates that are not significantly worse than the best."""
        return [s.surrogate for s in self.shares if s.against_best is not None and s.against_best > SIGNIFICANT]

    def of(self, surrogate: str) -> Share | None:
        """The share of one surrogate; None where it was not compared."""
        return next((share for share in self.shares if share.surrogate == surrogate), None)


def error_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of errors: 1 - winner_jaccard, dominance_area, and |it - model| of seq_rep_4, with questions as metrics.

    Args:
        rows: of one model and strategy; continuations are compared with the real one that they were paired with.
    """
    chosen = rows[rows["metric"].isin(list(QUESTIONS.values())) & (rows["surrogate"] != MODEL)]
    truth = rows[(rows["metric"] == QUESTIONS["how much"]) & (rows["surrogate"] == MODEL) & rows["value"].notna()]
    known = dict(zip(zip(truth["prompt"], truth["seed"], strict=True), truth["value"].astype(float), strict=True))
    pairs = zip(chosen["prompt"], real_seeds(chosen), strict=True)
    real = np.array([known.get(pair, np.nan) for pair in pairs], dtype=float)
    value = chosen["value"].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    metric = chosen["metric"].to_numpy()
    error = np.where(metric == QUESTIONS["who"], 1.0 - value, value)
    error = np.where(metric == QUESTIONS["how much"], np.abs(value - real), error)
    names = {metric: question for question, metric in QUESTIONS.items()}
    return chosen.assign(value=pd.array(error, dtype="Float64"), metric=chosen["metric"].map(names).astype("string"))


def errors(part: Part) -> Errors:
    """(question or `all`, surrogate or row of the frame) -> errors over the prompts on which everything is defined."""
    found: Errors = {}
    if len(part.rows):
        for key, sample in Observed(error_rows(part.rows)).cells(("metric", "surrogate")):
            found[str(key[0]), str(key[1])] = sample
    names = [FLOOR, CEILING, *part.contenders]
    cells = [(question, name) for question in QUESTIONS for name in names]
    if any(cell not in found or found[cell].pooled is None for cell in cells):
        return {}
    common = found[cells[0]].units
    for cell in cells[1:]:
        common = common.intersection(found[cell].units)
    if common.empty:
        return {}
    groups = found[cells[0]].groups_at(common)
    kept = {cell: _sample(common, _values(found[cell], common), groups) for cell in cells}
    for name in names:
        summed = sum((_values(kept[q, name], common) for q in QUESTIONS), np.zeros(1))
        kept[ALL, name] = _sample(common, summed, groups)
    return kept


def _values(sample: Sample, units: pd.Index) -> np.ndarray:
    pooled = sample.at(units)
    assert pooled is not None
    return pooled.numerators


def _sample(units: pd.Index, values: np.ndarray, groups: np.ndarray | None) -> Sample:
    return Sample(units, Pooled(values, np.ones_like(values)), False, len(units), 0, None, groups=groups)


def _room(floor: Sample, ceiling: Sample) -> Interval:
    """Error of the floor less that of the ceiling, with an interval that draws nothing.

    Whether a share is shown hangs on it, and where it is at the edge, the seed of a bootstrap would decide.
    """
    found = group_mean(_values(floor, floor.units) - _values(ceiling, floor.units), floor.groups).interval()
    return replace(found, n=len(floor.units))


def against(found: Errors, reference: str, others: Sequence[str]) -> dict[str, float]:
    """p-values of sign-flip tests of all errors against those of a reference, corrected by Holm over the others."""
    if not others:
        return {}
    tests = [difference(found[ALL, reference], found[ALL, name], ALL, paired=True).p for name in others]
    corrected = holm([1.0 if p is None else p for p in tests])  # no p-value: no difference anywhere
    return dict(zip(others, corrected.tolist(), strict=True))


@once_of
def recovered(part: Part) -> Recovered:
    """The recovered shares of one model and strategy.

    A share has a value where the ceiling is better than the floor beyond chance: the interval of the room between them
    excludes 0. It is that of the test of a mean over groups of prompts (`stats.grouped`), the same for every seed.
    """
    found = errors(part)
    names = part.contenders
    if not found:
        missing = Interval(None, None, None, 0, "no prompt has floor, ceiling and every surrogate")
        return Recovered(
            [Share(name, dict.fromkeys(QUESTIONS, missing), missing, None, None) for name in names], missing, 0
        )
    questions = (*QUESTIONS, ALL)
    rooms = {q: _room(found[q, FLOOR], found[q, CEILING]) for q in questions}

    def share(question: str, name: str) -> Interval:
        room = rooms[question]
        if room.value is None or room.value <= 0 or (room.low is not None and room.low <= 0):
            return Interval(None, None, None, room.n, NO_ROOM)
        units = found[question, FLOOR].units
        floor, ceiling, own = (_values(found[question, of], units) for of in (FLOOR, CEILING, name))
        drawn = Pooled(floor - own, np.ones_like(own)), Pooled(floor - ceiling, np.ones_like(own))
        gains, room_of = (one.by(found[question, FLOOR].groups).numerators for one in drawn)
        return recovered_interval(gains, room_of, SEED)

    order = sorted(names, key=lambda name: found[ALL, name].value or 0.0)
    counts = against(found, BASELINE, [name for name in names if name != BASELINE]) if BASELINE in names else {}
    best = against(found, order[0], order[1:]) if order else {}
    shares = [
        Share(name, {q: share(q, name) for q in QUESTIONS}, share(ALL, name), counts.get(name), best.get(name))
        for name in order
    ]
    return Recovered(shares, rooms[ALL], rooms[ALL].n)
