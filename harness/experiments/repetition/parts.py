"""The held-out rows of one model and strategy, pooled: what tables, answers and figures read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.once import among, once
from harness.core.records import Interval
from harness.core.rows import MODEL, RESEEDED, SHUFFLED
from harness.experiments._shared.leading import counted
from harness.experiments._shared.parts import FRAME
from harness.experiments.repetition.chosen import CHOSEN, NEIGHBOURS, Chosen, choices, short_rung, up_to, with_chosen
from harness.experiments.repetition.margins import margins_at
from harness.experiments.repetition.sources import CONSTANT, DECODED, LOGIT, NEVER, RAW, Source
from harness.experiments.repetition.unseen import JOINT
from harness.stats.equivalence import Verdict, Word, judge
from harness.stats.grouped import GroupMean, group_mean
from harness.stats.intervals import FEWEST_UNITS, Floats
from harness.stats.pooling import Observed, Sample, prepare
from harness.stats.proper import Recovered, recovered

FIXED = {SHUFFLED: FRAME[SHUFFLED], CONSTANT: "constant law", NEVER: "never repeats", RESEEDED: FRAME[RESEEDED]}
"""Sources that are no surrogates: name in the rows -> in tables."""
MEANS = "Means: 95 % intervals, bootstrap over groups."
DIFFERENCES = "Differences: paired by prompt, 95 % t intervals over groups, corrected for skewness."
CALIBRATION = ("calibration_forecast", "calibration_event")
"""Metrics of bins of forecasts, which are of a fold and of no prompt."""
_NOTHING = Sample(pd.Index([]), None, False, 0, 0, None)
_KEYS = ("model", "strategy", "metric", "surrogate")


@dataclass(frozen=True)
class Paired:
    """Values of two or more figures over the prompts where all are defined.

    Attributes:
        values: [figures, n].
        groups: [n] what the prompts share; None where they share nothing.
    """

    values: Floats
    groups: np.ndarray | None

    @property
    def n(self) -> int:
        """Prompts."""
        return int(self.values.shape[1])

    @property
    def differences(self) -> Floats:
        """[n] the first figure minus the second."""
        found: Floats = self.values[0] - self.values[1]
        return found

    def mean(self) -> GroupMean:
        """The mean difference."""
        return group_mean(self.differences, self.groups)

    @property
    def groups_there(self) -> int:
        """How many groups the prompts are of."""
        return self.n if self.groups is None else len(np.unique(self.groups))

    @property
    def same(self) -> bool:
        """Is the difference one number in at least 5 groups? It has no interval then, but leaves nothing open."""
        one = self.differences
        return self.groups_there >= FEWEST_UNITS and float(np.ptp(one)) <= 1e-9 * max(abs(float(one[0])), 1e-9)

    @property
    def equal(self) -> bool:
        """Is that number 0: are both sides equal on every prompt?"""
        return self.same and bool((self.differences == 0).all())


def paired(*samples: Sample) -> Paired:
    """Figures over the prompts that all of them have.

    Args:
        *samples: means over prompts, seeds averaged first.
    """
    if any(one.pooled is None for one in samples):
        return Paired(np.zeros((len(samples), 0)), None)
    common = samples[0].units
    for one in samples[1:]:
        common = common.intersection(one.units)
    rows = [np.zeros(0) if (pooled := one.at(common)) is None else pooled.contributions() for one in samples]
    return Paired(np.stack(rows), samples[0].groups_at(common))


def word_of(verdict: Verdict, both: Paired) -> Word:
    """The verdict; where the difference is the same on every prompt, what that number says."""
    if both.same and verdict.interval.value is not None:
        return "agrees" if abs(verdict.interval.value) < verdict.margin else "differs"
    return verdict.word


@dataclass(frozen=True)
class Part:
    """One model and strategy.

    Attributes:
        model, strategy: as in the rows.
        samples: (metric, source) -> the figure with its units, in the order of the rows.
        rungs: what each rung of the nested ladder adds, in its order.
        one: the model has one continuation of each prompt.
        choice: which rung each fold chose on its training prompts; None where none was chosen.
    """

    model: str
    strategy: str
    samples: dict[tuple[str, Source], Sample]
    rungs: tuple[str, ...]
    one: bool
    choice: Chosen | None = None

    @property
    def what(self) -> str:
        """Model and strategy, for a sentence."""
        return f"{self.model}, {self.strategy}"

    def sample(self, metric: str, source: Source) -> Sample:
        """A figure with its units; one without units where there are no rows."""
        return self.samples.get((metric, source), _NOTHING)

    def margin(self, metric: str) -> float:
        """Within which equivalence is tested, as the config of the run named it."""
        named = self.sample(f"margin_{metric}", Source(MODEL)).value
        return margins_at(self.strategy)[metric] if named is None else named

    def interval(self, metric: str, source: Source) -> Interval:
        """A figure with its interval over groups of prompts; those of one metric are made together."""
        prepare(sample for (name, _), sample in self.samples.items() if name == metric)
        return self.sample(metric, source).interval()

    def sources(self, metric: str, t0: int | None = None) -> list[Source]:
        """Whose figures there are, by law and in the order of the rows; what frames them last.

        The model is left out, and so are refinements of rungs and weights of other strategies, which have tables.

        Args:
            metric: a name in the rows.
            t0: only those that took over there; None for all.
        """
        places = {"": len(self.laws), **{law: place for place, law in enumerate(self.laws)}}
        order = {name: place for place, name in enumerate(FIXED)}
        apart = {MODEL, *JOINT}
        found = [
            one
            for name, one in self.samples
            if name == metric
            and one.name not in apart
            and one.rung not in NEIGHBOURS
            and not one.refined
            and t0 in (None, one.t0)
        ]
        return sorted(found, key=lambda one: (places[one.law], one.t0, order.get(one.name, -1)))

    @property
    def starts(self) -> list[int]:
        """Where surrogates take over, from the first."""
        return sorted({source.t0 for name, source in self.samples if name == "energy_score"})

    @property
    def start(self) -> int:
        """The first of them: that of all tables but those that compare them."""
        return self.starts[0] if self.starts else 0

    @property
    def prompts(self) -> tuple[int, int]:
        """Prompts that the model continued, and their groups."""
        walked, along = self.sample("new_tokens", self.fixed(MODEL)), self.sample("new_share", Source(MODEL, self.law))
        one = walked if walked.rows else along
        return len(one.units), len(one.units if one.groups is None else np.unique(one.groups))

    @property
    def laws(self) -> list[str]:
        """Laws that surrogates were fitted to, the decoded one first."""
        return sorted({source.law for _, source in self.samples if source.law and source.name != MODEL})

    @property
    def one_law(self) -> bool:
        """Does decoding leave the model's distributions as they are? Only the decoded law is fitted then."""
        if RAW in self.laws:
            return False
        both = paired(*(self.sample("entropy", Source(MODEL, law)) for law in (DECODED, RAW)))
        return both.n > 0 and bool((np.abs(both.differences) < 1e-6).all())

    def fitted(self, law: str) -> str:
        """The law whose rows say what there is to say of a law: the decoded one where both are the same."""
        return DECODED if law == RAW and self.one_law else law

    @property
    def law(self) -> str:
        """The law of the headline: the decoded one, where there is one."""
        return self.laws[0] if self.laws else DECODED

    @property
    def shown(self) -> Source | None:
        """The walks of the headline: of the chosen rung, else of the last one; None without a ladder."""
        name = CHOSEN if self.choice else self.rungs[-1] if self.rungs else None
        return None if name is None else self.rung(name)

    @property
    def shown_rung(self) -> str:
        """That rung in words, such as "up to recency in 3 of 5 folds and counts in 2"."""
        return self.choice.words if self.choice else self.up_to(self.rungs[-1]) if self.rungs else "no rung"

    def up_to(self, rung: str) -> str:
        """A rung in words."""
        return up_to(rung, self.rungs[0])

    def rung(self, name: str, law: str | None = None, t0: int | None = None) -> Source:
        """The source of a rung; its law and start are those of the headline unless they are given."""
        return Source(LOGIT, self.law if law is None else law, name, self.start if t0 is None else t0)

    def fixed(self, name: str, t0: int | None = None) -> Source:
        """The model itself, or a row that frames the surrogates."""
        return Source(name, t0=self.start if t0 is None else t0)

    def against_model(self, metric: str, source: Source) -> Paired:
        """A source's figure and the model's, prompt by prompt."""
        return paired(self.sample(metric, source), self.sample(metric, self.fixed(MODEL, source.t0)))

    def verdict(self, metric: str, source: Source) -> Verdict:
        """Whether walks agree with the model within the margin, before any correction for other figures."""
        both = self.against_model(metric, source)
        return judge(both.differences, both.groups, self.margin(metric))

    def recovered(self, metric: str, source: Source) -> Recovered:
        """Share of the room between another prompt's continuations and the model itself, at the source's start."""
        names = (self.fixed(SHUFFLED, source.t0), self.fixed(RESEEDED, source.t0))
        three = paired(self.sample(metric, source), *(self.sample(metric, one) for one in names))
        return recovered(three.values[0], three.values[1], three.values[2], three.groups)


def margins_of(found: Sequence[Part], metric: str) -> str:
    """Within which one measure is tested: "0.05", or "0.05 (temperature=1: 0.01)" where one strategy has its own."""
    of = {part.strategy: part.margin(metric) for part in found}
    usual = max(of.values(), key=list(of.values()).count, default=margins_at("")[metric])
    others = [f"{strategy}: {margin:g}" for strategy, margin in of.items() if margin != usual]
    return f"{usual:g}" + (f" ({', '.join(others)})" if others else "")


def one_law_note(found: Sequence[Part]) -> str:
    """Which strategies have no rows of the raw law because it is the decoded one; empty without any."""
    same = list(dict.fromkeys(part.strategy for part in found if part.one_law))
    if not same or not any(RAW in part.laws for part in found):
        return ""
    return f" With {', '.join(same)} both laws are one distribution: lines of the decoded law are those of the raw one."


def source_name(source: Source) -> str:
    """What tables call a source; a surrogate that gives nothing to new tokens is called closed."""
    if source.name in FIXED:
        return FIXED[source.name]
    declared = registry.surrogates("vocabulary").get(source.name)
    closed = " (closed)" if declared is not None and not declared.open else ""
    name = "chosen rung" if source.rung == CHOSEN else short_rung(source.rung) if source.rung else source.name
    return f"{name}{closed}"


@once
def parts(rows: pd.DataFrame) -> list[Part]:
    """Every model and strategy of the rows, in their order.

    Args:
        rows: of the experiment, from one run.
    """
    given = rows[among(rows, "split", "held_out") & ~among(rows, "metric", *CALIBRATION)]
    if given.empty:
        return []
    chosen = choices(rows)
    seen = Observed(with_chosen(given, chosen))
    factors = [seen.factor(name) for name in ("law", "rung", "t0", "without", "refined")]
    there = [factor for factor in factors if factor is not None]
    found: dict[tuple[str, str], dict[tuple[str, Source], Sample]] = {}
    for key, sample in seen.cells((*_KEYS, *there)):
        model, strategy, metric, name = map(str, key[: len(_KEYS)])
        values = dict(zip(there, key[len(_KEYS) :], strict=True))
        law, rung, t0, without, refined = (values.get(factor) if factor else None for factor in factors)
        source = Source(name, str(law or ""), str(rung or ""), int(float(str(t0 or 0))), str(without or ""),
                        str(refined or ""))  # fmt: skip
        found.setdefault((model, strategy), {})[metric, source] = sample
    return [_part(model, strategy, samples, chosen.get(model)) for (model, strategy), samples in found.items()]


def _part(model: str, strategy: str, samples: dict[tuple[str, Source], Sample], choice: Chosen | None) -> Part:
    rungs = tuple(dict.fromkeys(source.rung for _, source in samples if source.rung))
    own = tuple(rung for rung in rungs if rung != CHOSEN and rung not in NEIGHBOURS)
    return Part(model, strategy, samples, own, _one(samples), choice)


def _one(samples: dict[tuple[str, Source], Sample]) -> bool:
    """Does the model have one continuation of each prompt? Then the ceiling's scores are all exactly 0."""
    ceilings = [sample.pooled for (metric, source), sample in samples.items()
                if metric == "energy_score" and source.name == RESEEDED and sample.pooled is not None]  # fmt: skip
    return bool(ceilings) and all(bool((pooled.numerators == 0).all()) for pooled in ceilings)


def by_model(found: Sequence[Part]) -> dict[str, list[Part]]:
    """Model -> its parts, in their order."""
    grouped: dict[str, list[Part]] = {}
    for part in found:
        grouped.setdefault(part.model, []).append(part)
    return grouped


def prompts_of(found: Sequence[Part]) -> str:
    """How many prompts and groups were judged: "12 held-out prompts in 6 groups"."""
    prompts, groups = ([part.prompts[place] for part in found] for place in (0, 1))
    return f"{counted(prompts, 'held-out prompt')} in {counted(groups, 'group')}"
