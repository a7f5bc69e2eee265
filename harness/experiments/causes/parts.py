"""The rows of one model and strategy, by what was done: what tables, answers and figures read.

Interventions are compared at one loss: what belongs together is a family, all interventions of one sort of text, level
and context. Verdicts of a family are corrected together (Holm). An intervention whose loss on the half of the texts
that its strength was not set on is not that of the level is not compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from harness.core.records import Interval
from harness.core.rows import MODEL
from harness.experiments.causes.settings import CONTEXTS, INTERVENTIONS, NGRAM, NOISE, SORTS, random_name
from harness.stats.equivalence import ALPHA, Verdict, judge, judged_together
from harness.stats.grouped import group_mean

REPEATED = "seq_rep_4"
MEASURES = (REPEATED, "loop_share", "context_rep_4", "winner_size")
OFF = 0.5
"""How far, as a share of the level, the loss on the other half may lie from it."""
Family = tuple[str, float, str]
"""Sort of text, level, context."""


@dataclass(frozen=True)
class Job:
    """What was done while continuations were written; without a level: nothing, or the reference that has none."""

    name: str
    text: str | None = None
    level: float | None = None


NOTHING = Job(MODEL)


@dataclass(frozen=True)
class Matched:
    """How a strength was set.

    Attributes:
        strength: None where the level is not reached.
        match: rise of the loss on the half that it was set on.
        report: rise on the other half, over groups of texts.
        largest: rise that any strength reaches, on the first half.
        missing: why there is no strength.
    """

    strength: float | None
    match: float | None
    report: Interval
    largest: float | None
    missing: str | None

    def holds(self, level: float) -> bool:
        """Is the loss on the other half that of the level: within half of it, or not shown to be another?"""
        own = self.report
        if own.value is None:
            return False
        inside = own.low is not None and own.high is not None and own.low <= level <= own.high
        return inside or abs(own.value - level) <= OFF * level


@dataclass(frozen=True)
class Part:
    """One model and strategy.

    Attributes:
        model, strategy: as in the rows.
        written: (metric, job, context) -> value and group by prompt, a mean over seeds.
        matched: (intervention, sort of text, level) -> how its strength was set.
        heads: intervention -> layer -> how many of its heads are changed.
        margin: of seq_rep_4.
        repeats: how often a sentence stands in a context that sets repetition up.
    """

    model: str
    strategy: str
    written: dict[tuple[str, Job, str], pd.DataFrame]
    matched: dict[tuple[str, str, float], Matched]
    heads: dict[str, dict[int, int]]
    margin: float
    repeats: int

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.strategy

    @property
    def what(self) -> str:
        """Model and strategy, for a sentence."""
        return f"{self.model}, {self.strategy}"

    @property
    def contexts(self) -> list[str]:
        """The contexts in which something was written, natural ones first."""
        return [context for context in CONTEXTS if (REPEATED, NOTHING, context) in self.written]

    @cached_property
    def names(self) -> list[str]:
        """Interventions with a level, in the order of the settings."""
        found = {name for name, _, _ in self.matched}
        order = [other for name in INTERVENTIONS for other in (name, random_name(name))]
        return [name for name in order if name in found] + sorted(found - set(order))

    @cached_property
    def families(self) -> list[Family]:
        """Sorts of text, levels and contexts in which anything was written under an intervention."""
        found = {
            (job.text, job.level, context) for metric, job, context in self.written if job.text and metric == REPEATED
        }
        return [
            (sort, level, context)
            for sort in SORTS
            for level in sorted({level for _, level, _ in found if level is not None})
            for context in CONTEXTS
            if (sort, level, context) in found
        ]

    def mean(self, metric: str, job: Job, context: str) -> Interval:
        """The mean over prompts, with its interval over groups."""
        found = self.written.get((metric, job, context))
        if found is None:
            return Interval(None, None, None, 0, "not written")
        return group_mean(found["value"], found["group"]).interval()

    def change(self, job: Job, context: str, metric: str = REPEATED, of: Job = NOTHING) -> Verdict | None:
        """A figure under an intervention less that of another job, paired by prompt, alone; None: not written."""
        both = self._paired((metric, job, context), (metric, of, context))
        return None if both is None else self._together({job.name: both})[job.name]

    def _paired(self, one: tuple[str, Job, str], other: tuple[str, Job, str]) -> pd.DataFrame | None:
        if one not in self.written or other not in self.written:
            return None
        both = self.written[one].join(self.written[other].add_suffix("_other"), how="inner")
        if both.empty:
            return None
        return both.assign(change=both["value"] - both["value_other"])

    def compared(self, family: Family) -> list[str]:
        """The interventions of a family that were written with, at the loss of its level."""
        sort, level, context = family
        return [
            name
            for name in self.names
            if (REPEATED, Job(name, sort, level), context) in self.written and self.holds(name, sort, level)
        ]

    def holds(self, name: str, sort: str, level: float) -> bool:
        """Is the loss of an intervention that of the level, on the half that its strength was not set on?"""
        found = self.matched.get((name, sort, level))
        return found is not None and found.holds(level)

    def verdicts(self, family: Family) -> dict[str, Verdict]:
        """Intervention -> the change of seq_rep_4 against the model as it is, corrected together."""
        return self._differences(self.compared(family), family, NOTHING)

    def against(self, family: Family, control: str = NOISE) -> dict[str, Verdict]:
        """Intervention -> seq_rep_4 less that of a control at the same loss, corrected together."""
        sort, level, _ = family
        compared = self.compared(family)
        if control not in compared:
            return {}
        return self._differences([name for name in compared if name != control], family, Job(control, sort, level))

    def _differences(self, names: list[str], family: Family, of: Job) -> dict[str, Verdict]:
        sort, level, context = family
        pairs = {
            name: self._paired((REPEATED, Job(name, sort, level), context), (REPEATED, of, context)) for name in names
        }
        return self._together({name: both for name, both in pairs.items() if both is not None})

    def _together(self, pairs: dict[str, pd.DataFrame]) -> dict[str, Verdict]:
        """Verdicts of several differences, corrected together; what each could have found is at the corrected level."""
        judged = judged_together(
            [judge(both["change"].to_numpy(), both["group"].to_numpy(), self.margin) for both in pairs.values()]
        )
        found = {}
        for (name, both), verdict in zip(pairs.items(), judged, strict=True):
            spread = group_mean(both["change"].to_numpy(), both["group"].to_numpy()).spread()
            least = None if spread is None else spread.findable(1 - ALPHA / len(pairs))
            found[name] = replace(verdict, findable=least)
        return found

    def contrasts(self, sort: str, level: float) -> dict[str, Verdict]:
        """Intervention -> the change where the prompt sets repetition up less the change in natural text, by prompt."""
        if len(self.contexts) < 2:
            return {}
        natural, set_up = CONTEXTS
        found: dict[str, pd.DataFrame] = {}
        for name in self.compared((sort, level, natural)):
            job = Job(name, sort, level)
            pairs = [self._paired((REPEATED, job, at), (REPEATED, NOTHING, at)) for at in (set_up, natural)]
            if pairs[0] is None or pairs[1] is None:
                continue
            both = pairs[0][["change", "group"]].join(pairs[1][["change"]].add_suffix("_natural"), how="inner")
            if len(both):
                found[name] = both.assign(change=both["change"] - both["change_natural"])
        return self._together(found)

    @cached_property
    def headline(self) -> tuple[str, float] | None:
        """Sort of text and level at which most interventions are compared; of several human-like text, the largest."""
        order: dict[str, int] = {sort: -place for place, sort in enumerate(SORTS)}
        found: dict[tuple[str, float], int] = {}
        for family in self.families:
            at = family[0], family[1]
            found[at] = found.get(at, 0) + len(self.compared(family))
        return max(found, key=lambda at: (found[at], order[at[0]], at[1]), default=None)

    @property
    def reference(self) -> Job | None:
        """The reference without a level, where it was written."""
        found = [job for metric, job, _ in self.written if job.name == NGRAM and metric == REPEATED]
        return found[0] if found else None


def smallest_margin(verdict: Verdict) -> float | None:
    """The smallest margin within which a difference is shown to be 0, at 5 %."""
    ends = verdict.inner.low, verdict.inner.high
    return None if ends[0] is None or ends[1] is None else max(abs(ends[0]), abs(ends[1]))


def parts(rows: pd.DataFrame) -> list[Part]:
    """Every model and strategy of the rows, in their order.

    Args:
        rows: of the experiment, from one run.
    """
    rows = rows.copy()
    rows["group"] = rows["group"].fillna(rows["prompt"])
    factors = [json.loads(text) if isinstance(text, str) else {} for text in rows["condition"]]
    rows["context"] = [one.get("context") for one in factors]
    rows["job"] = pd.Series([_job(one) for one in factors], index=rows.index, dtype=object)
    found = []
    for model, of_model in rows.groupby("model", sort=False):
        matched, heads = _matched(of_model), _heads(of_model)
        for strategy, own in of_model[of_model["strategy"].notna()].groupby("strategy", sort=False):
            margin, repeats = (_number(own, name) for name in ("margin_seq_rep_4", "repeats"))
            if margin is None:
                continue
            kept = own[own["metric"].isin(MEASURES) & own["context"].notna()]
            written = _written(kept)
            found.append(Part(str(model), str(strategy), written, matched, heads, margin, int(repeats or 0)))
    return found


def _job(factors: dict[str, Any]) -> Job:
    name = factors.get("intervention", "none")
    return Job(MODEL if name == "none" else name, factors.get("text"), factors.get("level"))


def _number(rows: pd.DataFrame, metric: str) -> float | None:
    found = rows[rows["metric"] == metric]["value"].dropna()
    return float(found.iloc[0]) if len(found) else None


def _written(rows: pd.DataFrame) -> dict[tuple[str, Job, str], pd.DataFrame]:
    found: dict[tuple[str, Job, str], pd.DataFrame] = {}
    rows = rows[rows["value"].notna() & rows["prompt"].notna()]
    for (metric, job, context), own in rows.groupby(["metric", "job", "context"], sort=False):
        table = own.groupby("prompt", sort=True).agg(value=("value", "mean"), group=("group", "first"))
        table["value"] = table["value"].astype(np.float64)
        assert isinstance(job, Job)
        found[str(metric), job, str(context)] = table
    return found


def _matched(rows: pd.DataFrame) -> dict[tuple[str, str, float], Matched]:
    """How strengths were set, of one model."""
    rises = rows[rows["metric"] == "loss_rise"]
    largest = {
        (job.name, job.text): float(value)
        for job, value in zip(*(rows[rows["metric"] == "largest_rise"][name] for name in ("job", "value")), strict=True)
    }
    found = {}
    for one in rows[rows["metric"] == "strength"].to_dict("records"):
        job: Job = one["job"]
        own = rises[rises["job"] == job]
        on_match, other = own[own["split"] == "train"]["value"], own[own["split"] == "held_out"]
        missing = None if pd.isna(one["missing"]) else str(one["missing"])
        report = (
            group_mean(other["value"].astype(float).to_numpy(), other["group"].to_numpy()).interval()
            if len(other)
            else Interval(None, None, None, 0, missing)
        )
        strength = None if pd.isna(one["value"]) else float(one["value"])
        match = float(on_match.iloc[0]) if len(on_match) else None
        assert job.text is not None and job.level is not None
        most = largest.get((job.name, job.text))
        found[job.name, job.text, job.level] = Matched(strength, match, report, most, missing)
    return found


def _heads(rows: pd.DataFrame) -> dict[str, dict[int, int]]:
    """Intervention -> layer -> heads that it changes, of one model; an empty mapping where there are none."""
    found: dict[str, dict[int, int]] = {}
    for one in rows[rows["metric"] == "heads_changed"].to_dict("records"):
        own = found.setdefault(one["job"].name, {})
        if not pd.isna(one["layer"]):
            own[int(one["layer"])] = int(one["value"])
    return found
