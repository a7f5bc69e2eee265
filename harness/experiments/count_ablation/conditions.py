"""The held-out rows of one model, pooled by what was done to it: what tables, answers and figures read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from harness.core.records import Interval
from harness.experiments._shared.leading import Leading
from harness.experiments._shared.parts import Samples
from harness.stats.differences import Pooled
from harness.stats.pooling import Difference, Observed, Sample, difference, sample

NONE = json.dumps({"ablation": "none"})
"""The condition in which nothing is done."""
REPETITION, PROSE, OWN_TEXT = "seq_rep_4", "loss_prose", "loss_model_text"
MEASURES = (REPETITION, "loop_share", "winner_size")
LOSSES = (PROSE, OWN_TEXT)
HALVES = {"first-half": "first half", "second-half": "second half"}
_PLACES = {"all": "all heads", **HALVES}


@dataclass(frozen=True, kw_only=True)
class Part(Samples):
    """One model; its figures go by condition and metric.

    Attributes:
        model: as in the rows.
        frame: its held-out rows, made ready for pooling.
    """

    model: str
    frame: pd.DataFrame

    @property
    def conditions(self) -> list[str]:
        """What was done, in the order of the rows; as JSON."""
        return list(dict.fromkeys(condition for condition, _ in self.samples))

    def infinite(self, condition: str, metric: str) -> int:
        """In how many texts a loss is infinite, since a penalty forbids a token that was written."""
        return self.sample(condition, metric).missing

    def placed(self, place: str, metric: str) -> Sample:
        """A figure where a part of the model lost the count, at the largest strength of that part; draws are averaged.

        Args:
            place: `ablation` of the conditions, such as "all" or "best-heads".
            metric: a measure or a loss.
        """
        done = {condition: json.loads(condition) for condition in self.conditions}
        own = {condition: found for condition, found in done.items() if found.get("ablation") == place}
        most = max((found["strength"] for found in own.values()), default=0.0)
        chosen = [condition for condition, found in own.items() if found["strength"] == most]
        return sample(self.frame[self.frame["condition"].isin(chosen) & (self.frame["metric"] == metric)])

    @property
    def places(self) -> list[str]:
        """The parts of the model that lost the count, in the order of the rows."""
        found = [json.loads(condition).get("ablation", "none") for condition in self.conditions]
        return [place for place in dict.fromkeys(found) if place != "none"]


def parts(rows: pd.DataFrame) -> list[Part]:
    """Every model of the rows, in their order.

    Args:
        rows: of the experiment, from one run.
    """
    seen = Observed(rows)
    samples: dict[str, dict[tuple[str, str], Sample]] = {}
    for (model, condition, metric), found in seen.cells(("model", "condition", "metric"), split="held_out"):
        samples.setdefault(str(model), {})[str(condition), str(metric)] = found
    ready = seen.frame[seen.frame["split"] == "held_out"]
    return [Part(model=name, frame=ready[ready["model"] == name], samples=found) for name, found in samples.items()]


def leading(found: Sequence[Part]) -> Leading:
    """The model as the first column of a table, where there are several."""
    return Leading(("model",), [(part.model,) for part in found])


def place_name(place: str) -> str:
    """A part of the model in words."""
    return _PLACES.get(place, place.replace("-", " "))


def name(condition: str) -> str:
    """A condition in words."""
    factors: dict[str, Any] = json.loads(condition)
    if "ablation" not in factors:
        key, value = next(iter(factors.items()))
        return f"{key} {value:g}"
    if factors["ablation"] == "none":
        return "nothing"
    draw = f", draw {factors['draw'] + 1}" if "draw" in factors else ""
    return f"count x {factors['strength']:g}, {place_name(factors['ablation'])}{draw}"


def change(part: Part, condition: str, metric: str) -> Difference:
    """Condition - nothing done, paired by prompt or text."""
    return difference(part.sample(condition, metric), part.sample(NONE, metric), metric, paired=True)


def contrast(part: Part, one: str, other: str, metric: str) -> Difference:
    """A part of the model without the count - another part without it, paired by prompt or text."""
    return difference(part.placed(one, metric), part.placed(other, metric), metric, paired=True)


def strongest(part: Part, place: str = "all") -> float | None:
    """The largest strength with which a part of the model lost the count."""
    found = [json.loads(condition) for condition in part.conditions]
    return max((f["strength"] for f in found if f.get("ablation") == place), default=None)


def less_penalty(part: Part, own: Sample, cost: float | None) -> Difference:
    """seq_rep_4 - that of the repetition penalty which costs as much on prose, paired by prompt.

    Between the two penalties (or none) whose losses enclose the cost, each prompt's measure is interpolated with the
    share that the mean losses give; beyond the penalties that were measured there is no answer.

    Args:
        part: one model.
        own: seq_rep_4 where something was done to it.
        cost: what that costs on prose, nats per token; None where it is not known.
    """
    matched = _penalty_of(part, cost)
    if isinstance(matched, str):
        missing = Interval(None, None, None, 0, matched)
        return Difference(missing, None, None, True, pd.Series(dtype=float))
    return difference(own, matched, REPETITION, paired=True)


def _penalty_of(part: Part, cost: float | None) -> Sample | str:
    """seq_rep_4 of the repetition penalty of a given cost; or why there is none."""
    penalties = [condition for condition in part.conditions if "repetition_penalty" in json.loads(condition)]
    costs = {NONE: 0.0, **{c: change(part, c, PROSE).interval.value for c in penalties}}
    known = sorted((found, condition) for condition, found in costs.items() if found is not None)
    enclosing = _enclosing(known, cost)
    if cost is None or enclosing is None:
        return "no penalty that was measured costs as much"
    (low, cheaper), (high, dearer) = enclosing
    share = (cost - low) / (high - low)
    a, b = part.sample(cheaper, REPETITION), part.sample(dearer, REPETITION)
    common = a.units.intersection(b.units)
    x, y = (found.at(common) if found.pooled is not None and len(common) else None for found in (a, b))
    if x is None or y is None:
        return "no prompt where both penalties are defined"
    mixed = (1 - share) * x.contributions() + share * y.contributions()
    return Sample(common, Pooled(mixed, x.denominators), False, a.rows + b.rows, a.missing + b.missing, None)


def _enclosing(
    known: Iterable[tuple[float, str]], cost: float | None
) -> tuple[tuple[float, str], tuple[float, str]] | None:
    """The neighbours in a sorted list between which a cost lies."""
    for low, high in pairwise(known):
        if cost is not None and low[0] <= cost <= high[0] > low[0]:
            return low, high
    return None
