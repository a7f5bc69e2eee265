"""The held-out rows of one model and strategy, pooled over prompts: what tables, answers and figures of heads read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from harness.core import registry
from harness.core.once import among, once
from harness.core.records import Interval
from harness.experiments._shared.parts import DecodedPart
from harness.stats.contest import p_of_lead, p_of_zero
from harness.stats.median import median_of_heads
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
        by_head: surrogate -> (layer, head) -> explained.
    """

    heads: int
    prompts: int
    by_head: dict[str, dict[tuple[int, int], Sample]]

    def interval(self, first: str, second: str) -> Interval:
        """A figure, by metric and surrogate, with its interval over prompts; counts explains 0 by definition."""
        if (first, second) == ("explained", COUNTS) and self.sample("kl", COUNTS).pooled is not None:
            return Interval(0.0, None, None, len(self.sample("kl", COUNTS).units), "0 by definition")
        return super().interval(first, second)

    @cached_property
    def medians(self) -> dict[str, Interval]:
        """What each surrogate explains of the median head."""
        return {name: median_of_heads(list(found.values())) for name, found in self.by_head.items()}

    def median_of(self, heads: Iterable[tuple[str, int, int]]) -> Interval:
        """The median of the explained shares of some (surrogate, layer, head)."""
        found = [self.by_head.get(name, {}).get((layer, head)) for name, layer, head in heads]
        return median_of_heads([one for one in found if one is not None])

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


def p_of_leads(part: Part) -> list[float]:
    """The p-values of the surrogate that explains most against every other, and last against counts."""
    best, *others = part.ranked
    own = part.sample("explained", best)
    tests = [p_of_lead(own, part.sample("explained", name), 1) for name in others]
    return [*tests, p_of_zero(own) if (own.value or 0.0) > 0 else 1.0]


@once
def parts(rows: pd.DataFrame) -> list[Part]:
    """Every model and strategy of the rows, in their order.

    Args:
        rows: of the experiment, from one run.
    """
    kept = rows[among(rows, "split", "held_out") & among(rows, "metric", *POOLED) & rows["strategy"].notna()]
    samples: dict[tuple[str, str], dict[tuple[str, str], Sample]] = {}
    seen = Observed(kept)
    for key, sample in seen.cells(("model", "strategy", "metric", "surrogate")):
        model, strategy, metric, surrogate = map(str, key)
        samples.setdefault((model, strategy), {})[metric, surrogate] = sample
    scored = kept[(kept["metric"] == "kl") & kept["head"].notna()]
    heads, prompts = (
        scored.drop_duplicates(["model", "strategy", *names]).groupby(["model", "strategy"]).size()
        for names in (["layer", "head"], ["prompt"])
    )
    by_head: dict[tuple[str, str], dict[str, dict[tuple[int, int], Sample]]] = {}
    for key, sample in seen.cells(("model", "strategy", "surrogate", "layer", "head"), metric="explained"):
        model, strategy, surrogate, layer, head = map(str, key)
        own = by_head.setdefault((model, strategy), {}).setdefault(surrogate, {})
        own[int(layer), int(head)] = sample
    return [
        Part(
            model=key[0],
            strategy=key[1],
            heads=int(heads[key]),
            prompts=int(prompts[key]),
            samples=found,
            by_head=by_head.get(key, {}),
        )
        for key, found in samples.items()
        if key in heads.index
    ]
