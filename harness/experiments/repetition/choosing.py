"""Which rung of the ladder is shown first: one rule for all strategies of a model, named before any run.

Energy scores of a prompt are summed over strategies. Of all rungs the one with the least mean is the reference, and the
lowest rung whose mean is not significantly larger is chosen (paired over prompts in groups, Holm over the other rungs,
two-sided at 5 %). Rungs are judged on held-out prompts, which then are no test of the rung that they chose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.experiments.repetition.parts import Part, paired
from harness.stats.contest import ALPHA
from harness.stats.grouped import group_mean
from harness.stats.pooling import Sample
from harness.stats.significance import holm

RULE = (
    "the lowest whose energy score, summed over strategies, is not significantly above the least one "
    f"(Holm, p > {ALPHA})"
)


@dataclass(frozen=True)
class Choice:
    """The rung of one model.

    Attributes:
        rung: what it adds to the ladder.
        least: the rung with the least mean energy score.
        means: rung -> mean over prompts of the energy scores summed over strategies.
        p: rung -> corrected p-value of its distance to the least one; None where nothing could be tested.
        strategies: which are summed.
        prompts: over how many prompts.
    """

    rung: str
    least: str
    means: dict[str, float]
    p: dict[str, float | None]
    strategies: tuple[str, ...]
    prompts: int

    @property
    def untested(self) -> bool:
        """Is a rung below the least one not worse only because nothing could be tested?"""
        return any(self.p[name] is None and self.means[name] > self.means[self.least] for name in self.p)


def choose(own: Sequence[Part]) -> Choice | None:
    """The rung of one model; None where no strategy has energy scores of its rungs.

    Args:
        own: the parts of one model.
    """
    scored = [part for part in own if part.rungs and all(_sample(part, rung).pooled for rung in part.rungs)]
    if not scored:
        return None
    rungs = scored[0].rungs
    scored = [part for part in scored if part.rungs == rungs]
    all_of_them = paired(*(_sample(part, rung) for part in scored for rung in rungs))
    if all_of_them.n == 0:
        return None
    summed = all_of_them.values.reshape(len(scored), len(rungs), -1).sum(axis=0)
    least = int(np.argmin(summed.mean(axis=1)))
    others = [place for place in range(len(rungs)) if place != least]
    raw = [group_mean(summed[place] - summed[least], all_of_them.groups).p() for place in others]
    corrected = holm(np.array([1.0 if one is None else one for one in raw])) if raw else np.zeros(0)
    p = {
        rungs[place]: None if one is None else float(value)
        for place, one, value in zip(others, raw, corrected, strict=True)
    }
    chosen = next(name for name in rungs if name == rungs[least] or p[name] is None or p[name] > ALPHA)  # type: ignore[operator]
    means = dict(zip(rungs, summed.mean(axis=1).tolist(), strict=True))
    return Choice(chosen, rungs[least], means, p, tuple(part.strategy for part in scored), all_of_them.n)


def _sample(part: Part, rung: str) -> Sample:
    return part.sample("energy_score", part.rung(rung))
