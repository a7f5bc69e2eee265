"""The rows of one setting of the one-layer model, pooled over repetitions: what tables, answers and figures read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.core import registry
from harness.core.rows import MODEL, RESEEDED, SHUFFLED
from harness.experiments._shared.parts import FRAME, Samples
from harness.stats.pooling import Observed

WEIGHTS, FIT = "ccmc-weights", "ccmc-fit"
LABELS = {MODEL: "trained model", **FRAME}
"""How tables and pictures call the rows that are no surrogates."""


@dataclass(frozen=True, kw_only=True)
class Setting(Samples):
    """One combination of K, d, n and the length of prompts; repetitions are the units of its figures.

    Attributes:
        factors: by name.
        rows: its rows.
        repetitions: how many there are, each with its own teacher, data and embeddings.
    """

    factors: dict[str, Any]
    rows: pd.DataFrame
    repetitions: int

    @property
    def what(self) -> str:
        """K, d and n for a sentence."""
        return ", ".join(f"{name} = {self.factors[name]:,}" for name in ("K", "d", "n") if name in self.factors)

    def of(self, metric: str, surrogate: str) -> pd.DataFrame:
        """The rows of a figure."""
        return self.rows[(self.rows["metric"] == metric) & (self.rows["surrogate"] == surrogate)]

    def largest(self, metric: str, surrogate: str) -> float | None:
        """The largest value of a repetition."""
        values = self.of(metric, surrogate)["value"].dropna()
        return float(values.max()) if len(values) else None

    def predicted(self, metric: str, surrogate: str) -> float | None:
        """What the theory says the figure is."""
        values = self.of(metric, surrogate)["prediction"].dropna()
        return float(values.mean()) if len(values) else None

    def verdict(self, metric: str, surrogate: str) -> str | None:
        """Whether the prediction is inside the interval of the figure; None where there is no interval."""
        found, predicted = self.interval(metric, surrogate), self.predicted(metric, surrogate)
        if found.low is None or found.high is None or predicted is None:
            return None
        return "agrees" if found.low <= predicted <= found.high else "differs"

    def ratio(self, metric: str, surrogate: str) -> float | None:
        """The figure over its prediction."""
        value, predicted = self.sample(metric, surrogate).value, self.predicted(metric, surrogate)
        return None if value is None or not predicted else value / predicted

    @property
    def risks(self) -> list[tuple[str, str]]:
        """(metric, surrogate) of the excess risks that were measured: the model, then surrogates along the ladder."""
        metrics = ("excess_risk", "excess_risk_over_model")
        found = {key for key in self.samples if key[0] in metrics}
        order = [MODEL, *registry.ladder({name for _, name in found} - {MODEL})]
        return sorted(found, key=lambda key: (order.index(key[1]), metrics.index(key[0])))

    @property
    def compared(self) -> list[str]:
        """Everything whose continuations are compared with the model's: floor, surrogates, ceiling."""
        names = {name for metric, name in self.samples if metric == "winner_jaccard"}
        return [n for n in (SHUFFLED, *registry.ladder(names - {SHUFFLED, RESEEDED}), RESEEDED) if n in names]


def settings(rows: pd.DataFrame) -> list[Setting]:
    """Every setting of the rows, in their order.

    Args:
        rows: of the experiment, from one run.
    """
    found = []
    for condition, own in rows[rows["condition"].notna()].groupby("condition", sort=False):
        samples = {(str(key[0]), str(key[1])): one for key, one in Observed(own).cells(("metric", "surrogate"))}
        factors, repetitions = json.loads(str(condition)), int(own["seed"].nunique())
        found.append(Setting(factors=factors, rows=own, repetitions=repetitions, samples=samples))
    return found


class Factors:
    """The factors that vary over settings, as the first columns of a table.

    Args:
        found: the settings of the table.
    """

    def __init__(self, found: Sequence[Setting]) -> None:
        names = dict.fromkeys(name for one in found for name in one.factors)
        self.names = [name for name in names if len({one.factors.get(name) for one in found}) > 1]
        fixed = {name: found[0].factors[name] for name in names if name not in self.names} if found else {}
        self.same = ", ".join(f"{name.replace('_', ' ')} = {value:,}" for name, value in fixed.items())

    def cells(self, of: Setting) -> list[Any]:
        """The cells of these columns."""
        return [of.factors.get(name) for name in self.names]
