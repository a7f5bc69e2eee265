"""The held-out rows of one model and strategy, pooled: what tables, answers and figures read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.core import registry
from harness.core.once import once
from harness.core.rows import MODEL, RESEEDED, SHUFFLED
from harness.experiments._shared.parts import DecodedPart
from harness.stats.pooling import Observed, Sample

FLOOR, CEILING = SHUFFLED, RESEEDED


@dataclass(frozen=True, kw_only=True)
class Part(DecodedPart):
    """One model and strategy; the figures of the model itself and of the rows that frame it are included.

    Attributes:
        rows: its held-out rows, as the run wrote them.
        frame: the same rows, made ready for pooling.
    """

    rows: pd.DataFrame
    frame: pd.DataFrame

    @property
    def surrogates(self) -> list[str]:
        """The surrogates in the order of the ladder, without model, floor and ceiling."""
        return registry.ladder({name for _, name in self.samples} - {MODEL, FLOOR, CEILING})

    @property
    def ranked(self) -> list[str]:
        """The surrogates that may be called best: those that are no controls."""
        return [name for name in self.surrogates if name not in registry.controls()]

    @property
    def named(self) -> list[str]:
        """The measures that the config names: those of the rows that are functions of what they see."""
        declared = {metric: registry.measure(metric) for metric in dict.fromkeys(metric for metric, _ in self.samples)}
        return [metric for metric, one in declared.items() if one is not None and one.sees]

    @property
    def compared(self) -> list[str]:
        """Everything whose continuations are compared with the model's: floor, surrogates, ceiling."""
        names = {name for metric, name in self.samples if metric == "winner_jaccard"}
        return [name for name in (FLOOR, *self.surrogates, CEILING) if name in names]

    @property
    def contenders(self) -> list[str]:
        """The surrogates that continued prompts and may be called best."""
        return [name for name in self.ranked if name in self.compared]

    @cached_property
    def of_model(self) -> dict[str, pd.Series]:
        """Metric -> the model's mean on each unit."""
        own = self._valued[self._valued["surrogate"] == MODEL]
        means = own.groupby(["metric", "unit"])["value"].mean()
        return {str(metric): one.droplevel(0) for metric, one in means.groupby(level=0)}

    @cached_property
    def by_seed(self) -> dict[tuple[str, str], pd.DataFrame]:
        """(metric, surrogate or row of the frame) -> its mean on each unit [units, seeds]; NaN where it has none."""
        own = self._valued[self._valued["surrogate"].isin(self.compared)]
        means = own.groupby(["metric", "surrogate", "unit", "seed"])["value"].mean().unstack("seed")
        places = cast("dict[tuple[str, str], NDArray[np.int64]]", means.groupby(level=[0, 1]).indices)
        means = means.droplevel([0, 1])
        return {pair: means.iloc[at[0] : at[-1] + 1] for pair, at in places.items()}

    @cached_property
    def _valued(self) -> pd.DataFrame:
        return self.frame.loc[self.frame["value"].notna(), ["metric", "surrogate", "unit", "seed", "value"]]

    @property
    def prompts(self) -> int:
        """Held-out prompts."""
        return int(self.rows["prompt"].dropna().nunique())

    @property
    def continued(self) -> int:
        """Held-out prompts that the model did not end at once."""
        return len(self.sample("seq_rep_1", MODEL).units)

    @property
    def one_continuation(self) -> bool:
        """Does the model have a single continuation of each prompt? Then its ceiling is its own continuation."""
        ceiling = self.rows[self.rows["surrogate"] == CEILING]
        return bool(len(ceiling)) and bool((ceiling["seed"] == real_seeds(ceiling)).fillna(False).all())


def real_seeds(rows: pd.DataFrame) -> pd.Series:
    """The seed of the real continuation that each row was compared with; missing where there is none."""
    known = {text: json.loads(text).get("real_seed") for text in rows["condition"].dropna().unique()}
    return rows["condition"].map(known).astype("Int64")


@once
def parts(rows: pd.DataFrame) -> list[Part]:
    """Every model and strategy of the rows, in their order.

    Args:
        rows: of the experiment, from one run.
    """
    seen = Observed(rows)
    samples: dict[tuple[str, str], dict[tuple[str, str], Sample]] = {}
    for key, sample in seen.cells(("model", "strategy", "metric", "surrogate"), split="held_out"):
        model, strategy, metric, surrogate = map(str, key)
        samples.setdefault((model, strategy), {})[metric, surrogate] = sample
    given = rows[rows["split"] == "held_out"]
    ready = seen.frame[seen.frame["split"] == "held_out"]

    def own(frame: pd.DataFrame, key: tuple[str, str]) -> pd.DataFrame:
        return frame[(frame["model"] == key[0]) & (frame["strategy"] == key[1])]

    return [
        Part(model=key[0], strategy=key[1], rows=own(given, key), frame=own(ready, key), samples=found)
        for key, found in samples.items()
    ]
