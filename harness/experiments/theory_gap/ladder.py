"""Means over the models of `theory-gap` that are beyond the theory: every model of a repetition has the same data."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.core import registry
from harness.core.records import Interval
from harness.core.rows import MODEL, RESEEDED, with_factors
from harness.experiments._shared.claims import POOLED, FloatArray, mean
from harness.experiments._shared.parts import FRAME
from harness.stats.pooling import SEED
from harness.stats.significance import sign_flip_p

TIED = "tied"
"""The paper's own model: its chain is in its weights."""
PAIRS = (("bigram", "bigram-restricted"), ("ccmc-open", "ccmc-fit"))
"""Open surrogates, each with its closed counterpart."""


def is_open(surrogate: str) -> bool | None:
    """Does it give probability to tokens outside the context? None where the surrogate is not declared here."""
    if surrogate == "ccmc-weights":  # declared among the surrogates of heads; a chain read off weights never leaves
        return False
    declared = registry.surrogates("next-token").get(surrogate)
    return None if declared is None else declared.open


class BeyondTheory:
    """Means over models, with repetitions as units.

    Args:
        rows: of this experiment, of one run.

    Attributes:
        data: kinds of data, in their order.
        models: models beyond the tied one, in their order; the tied one where there are no others.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        single = rows[(rows["split"] != POOLED) & rows["value"].notna()]
        frame = with_factors(single)
        frame = frame[frame["at_rung"].notna()] if "at_rung" in frame else frame.iloc[:0].assign(at_rung=None)
        every = list(frame["at_rung"].unique())
        self.models: list[str] = [name for name in every if name != TIED] or every
        self.data: list[str] = list(frame["at_data"].unique()) if len(frame) else []
        self._frame = frame[frame["at_rung"].isin(self.models)]

    def names(self) -> list[str]:
        """Whatever is compared with the models, in the order of the rows."""
        return [str(name) for name in self._frame["surrogate"].dropna().unique()]

    def _by_repetition(self, data: str, metric: str, surrogate: str) -> pd.Series:
        """Mean over the models of each repetition, by its number."""
        frame = self._frame
        of = frame[(frame["at_data"] == data) & (frame["metric"] == metric) & (frame["surrogate"] == surrogate)]
        return of.assign(value=of["value"].astype(float)).groupby("seed", sort=True)["value"].mean()

    def values(self, data: str, metric: str, surrogate: str) -> FloatArray:
        """[R] mean over the models of each repetition, in order; repetitions without a value are left out."""
        return np.asarray(self._by_repetition(data, metric, surrogate), dtype=np.float64)

    def found(self, data: str, metric: str, surrogate: str) -> Interval:
        """The mean with its interval over repetitions."""
        return mean(self.values(data, metric, surrogate))

    def lead(self, data: str, metric: str, first: str, second: str) -> Interval:
        """How much larger the mean of one is than that of another, paired by repetition."""
        gap = self._by_repetition(data, metric, first) - self._by_repetition(data, metric, second)
        return mean(np.asarray(gap.dropna(), dtype=np.float64))

    def nearer(self, data: str, metric: str, first: str, second: str) -> FloatArray:
        """[R] how much smaller the distance of one to the ceiling is than that of another, paired by repetition.

        Whether a surrogate lies below or above the ceiling is decided by its mean over the repetitions, so that noise
        of single repetitions adds nothing to a distance.
        """
        ceiling = self._by_repetition(data, metric, RESEEDED)

        def distance(name: str) -> pd.Series:
            gap = (ceiling - self._by_repetition(data, metric, name)).dropna()
            return gap if gap.mean() > 0 else -gap

        return np.asarray((distance(second) - distance(first)).dropna(), dtype=np.float64)

    def models_with(self, surrogate: str) -> int:
        """How many models a surrogate was compared with."""
        of = self._frame[(self._frame["surrogate"] == surrogate) & (self._frame["metric"] == "winner_jaccard")]
        return int(of["at_rung"].nunique())

    def ranked(self, data: str, metric: str) -> list[list[str]]:
        """Surrogates that were compared with every model, the largest mean first; equal ones are together."""
        means = {}
        for name in self.names():
            values = self.values(data, metric, name)
            if name not in {MODEL, *FRAME} and self.models_with(name) == len(self.models) and len(values):
                means[name] = float(values.mean())
        found: list[list[str]] = []
        for name in sorted(means, key=lambda name: -means[name]):
            if found and means[found[-1][0]] - means[name] <= 1e-9:
                found[-1].append(name)
            else:
                found.append([name])
        return found

    def leads(self, data: str, metric: str) -> list[float]:
        """p-values, by random signs over repetitions, of the largest mean against every other, in their order."""
        first, *others = [names[0] for names in self.ranked(data, metric)] or [""]
        gaps = [self._by_repetition(data, metric, first) - self._by_repetition(data, metric, name) for name in others]
        return [1.0 if gap.dropna().empty else sign_flip_p(gap.dropna(), SEED) for gap in gaps]

    def best(self, data: str, metric: str) -> list[str]:
        """The surrogates with the largest mean; none where nothing was compared with every model."""
        return next(iter(self.ranked(data, metric)), [])
