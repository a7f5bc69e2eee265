"""The held-out rows of one model and strategy, pooled over prompts: what tables, answers and figures of heads read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
from numpy.typing import ArrayLike

from harness.core import registry
from harness.core.records import Interval
from harness.experiments._shared.parts import DecodedPart
from harness.stats.contest import p_of_lead, p_of_zero
from harness.stats.intervals import FEWEST_UNITS, median_interval, too_few
from harness.stats.pooling import Observed, Sample

COUNTS = "counts"
POOLED = ("kl", "total_variation", "top_token", "explained", "sink_share", "unseen_share")
"""Metrics that have a figure over all heads."""
NO_COUNTS = "counts was not run, and explained is measured against it"


@dataclass(frozen=True, kw_only=True)
class Part(DecodedPart):
    """One model and strategy; figures are over all heads, with prompts as units.

    Attributes:
        heads: how many were scored.
        prompts: held-out prompts.
        medians: surrogate -> explained of the median head.
    """

    heads: int
    prompts: int
    medians: dict[str, Interval]

    def interval(self, first: str, second: str) -> Interval:
        """A figure, by metric and surrogate, with its interval over prompts; counts explains 0 by definition."""
        if (first, second) == ("explained", COUNTS) and self.sample("kl", COUNTS).pooled is not None:
            return Interval(0.0, None, None, len(self.sample("kl", COUNTS).units), "0 by definition")
        return super().interval(first, second)

    @property
    def surrogates(self) -> list[str]:
        """The surrogates in the order of the ladder."""
        return registry.ladder({name for metric, name in self.samples if metric == "kl"})

    @property
    def ranked(self) -> list[str]:
        """The surrogates that explain most first; without counts and controls, and those without a figure.

        A surrogate that has no value somewhere has none here: a mean of the others would flatter it.
        """
        named = [name for name in self.surrogates if name != COUNTS and name not in registry.controls()]
        known = {name: self.sample("explained", name) for name in named}
        values = {name: found.value for name, found in known.items() if found.value is not None and not found.missing}
        return sorted(values, key=lambda name: -values[name])


def median_head(values: ArrayLike, prompts: int) -> Interval:
    """The median over heads, with an interval over heads where enough prompts stand behind each of them.

    Args:
        values: [heads] one figure for each head, pooled over prompts.
        prompts: held-out prompts that they were measured on.
    """
    found = median_interval(values)
    return found if prompts >= FEWEST_UNITS else replace(found, low=None, high=None, missing=too_few(prompts))


def p_of_leads(part: Part) -> list[float]:
    """The p-values of the surrogate that explains most against every other, and last against counts."""
    best, *others = part.ranked
    own = part.sample("explained", best)
    tests = [p_of_lead(own, part.sample("explained", name), 1) for name in others]
    return [*tests, p_of_zero(own) if (own.value or 0.0) > 0 else 1.0]


def parts(rows: pd.DataFrame) -> list[Part]:
    """Every model and strategy of the rows, in their order.

    Args:
        rows: of the experiment, from one run.
    """
    held_out = rows[(rows["split"] == "held_out") & rows["strategy"].notna()]
    own = held_out[(held_out["metric"] == "explained") & held_out["head"].notna() & held_out["prompt"].isna()]
    kept = held_out[held_out["metric"].isin(POOLED)]
    samples: dict[tuple[str, str], dict[tuple[str, str], Sample]] = {}
    for key, sample in Observed(kept).cells(("model", "strategy", "metric", "surrogate")):
        model, strategy, metric, surrogate = map(str, key)
        samples.setdefault((model, strategy), {})[metric, surrogate] = sample
    scored = kept[(kept["metric"] == "kl") & kept["head"].notna()]
    heads, prompts = (
        scored.drop_duplicates(["model", "strategy", *names]).groupby(["model", "strategy"]).size()
        for names in (["layer", "head"], ["prompt"])
    )
    medians: dict[tuple[str, str], dict[str, Interval]] = {}
    for key, of in own.groupby(["model", "strategy", "surrogate"], sort=False):
        model, strategy, surrogate = map(str, key)
        values = of["value"].dropna().to_numpy(dtype=float)
        read = int(prompts.get((model, strategy), 0))
        medians.setdefault((model, strategy), {})[surrogate] = median_head(values, read)
    return [
        Part(
            model=key[0],
            strategy=key[1],
            heads=int(heads[key]),
            prompts=int(prompts[key]),
            samples=found,
            medians=medians.get(key, {}),
        )
        for key, found in samples.items()
        if key in heads.index
    ]
