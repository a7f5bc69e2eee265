"""Single heads of one model and strategy: named by what they attend to, and how much of each is explained."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.core import registry
from harness.core.once import among, once
from harness.core.records import Interval
from harness.core.rows import MODEL
from harness.experiments.heads.parts import parts
from harness.measures.head_kinds import PATTERNS, kind_of
from harness.stats.pooling import Observed, Sample

SCORES = ("sink_share", *PATTERNS, "content_score")
"""The scores that decide the kind of a head."""


@dataclass(frozen=True)
class Head:
    """One head of one model and strategy.

    Attributes:
        layer, head: which.
        kind: of tokens that it attends to; None where the run has no scores.
        scores: of `SCORES`, those that are there: pooled over prompts, or the head's own.
        explained: by surrogate, in the order of the ladder.
    """

    layer: int
    head: int
    kind: str | None
    scores: dict[str, Sample | Interval]
    explained: dict[str, Interval]

    @property
    def name(self) -> str:
        """As options of the command line write it: layer.head."""
        return f"{self.layer}.{self.head}"

    @property
    def ranked(self) -> list[str]:
        """The surrogates that explain most first; controls are left out."""
        controls = registry.controls()
        known = {n: f.value for n, f in self.explained.items() if f.value is not None and n not in controls}
        return sorted(known, key=lambda name: -known[name])

    @property
    def best(self) -> str | None:
        """The surrogate that explains most."""
        return next(iter(self.ranked), None)

    @property
    def most(self) -> Interval:
        """The share that its best surrogate explains."""
        best = self.best
        return Interval(None, None, None, 0, "nothing was explained") if best is None else self.explained[best]

    def score(self, name: str) -> Interval | None:
        """One of `SCORES` with its interval."""
        found = self.scores.get(name)
        return found.interval() if isinstance(found, Sample) else found


def _own(row: Mapping[Hashable, Any]) -> Interval:
    """The interval that a row carries."""
    value, low, high = (None if pd.isna(row[name]) else float(row[name]) for name in ("value", "low", "high"))
    missing = None if pd.isna(row["missing"]) else str(row["missing"])
    return Interval(value, low, high, 0 if pd.isna(row["n"]) else int(row["n"]), missing)


def _rows_of(part: pd.DataFrame, metric: str) -> dict[tuple[int, int], dict[str, Interval]]:
    """(layer, head) -> surrogate -> what a unit measured over all its prompts."""
    found: dict[tuple[int, int], dict[str, Interval]] = {}
    own = part[part["metric"] == metric].drop_duplicates(["layer", "head", "surrogate"])
    for row in own[["layer", "head", "surrogate", "value", "low", "high", "n", "missing"]].to_dict("records"):
        found.setdefault((int(row["layer"]), int(row["head"])), {})[str(row["surrogate"])] = _own(row)
    return found


@once
def every_head(rows: pd.DataFrame) -> dict[tuple[str, str], list[Head]]:
    """Model and strategy -> their heads; nothing that no head was scored of."""
    return {part.key: heads_of(rows, *part.key) for part in parts(rows)}


def heads_of(rows: pd.DataFrame, model: str, strategy: str) -> list[Head]:
    """The heads of one model and strategy, in their order.

    Args:
        rows: of a run.
        model, strategy: which.
    """
    own = among(rows, "experiment", "heads") & among(rows, "model", model) & among(rows, "strategy", strategy)
    own &= among(rows, "split", "held_out") & rows["head"].notna().to_numpy(dtype=bool)
    part = rows[own & among(rows, "metric", "explained")]
    of_model = rows[own & among(rows, "surrogate", MODEL) & among(rows, "metric", *SCORES)]
    pooled: dict[tuple[int, int], dict[str, Sample]] = {}
    seen = Observed(of_model[of_model["prompt"].notna()])
    for (layer, head, metric), sample in seen.cells(("layer", "head", "metric")):
        pooled.setdefault((int(str(layer)), int(str(head))), {})[str(metric)] = sample
    contents, explained = _rows_of(of_model, "content_score"), _rows_of(part, "explained")
    found = []
    for place in sorted(set(pooled) | set(explained)):
        scores: dict[str, Sample | Interval] = dict(pooled.get(place, {}))
        if place in contents:
            scores["content_score"] = contents[place][MODEL]
        values = {name: score.value for name, score in scores.items() if score.value is not None}
        kind = kind_of(values) if set(PATTERNS) & set(values) else None
        by_name = explained.get(place, {})
        found.append(Head(*place, kind, scores, {name: by_name[name] for name in registry.ladder(by_name)}))
    return found
