"""Pooled figures of one part of a run, such as a model and strategy: for tables, answers and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from harness.core.records import Interval
from harness.core.rows import RESEEDED, SHUFFLED
from harness.experiments._shared.leading import Leading
from harness.stats.pooling import Sample

FRAME = {SHUFFLED: "other prompt (floor)", RESEEDED: "other seed (ceiling)"}
"""How tables and pictures call the continuations of the model itself that frame the surrogates."""
_NOTHING = Sample(pd.Index([]), None, False, 0, 0, None)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Pooled figures by two names.

    Attributes:
        samples: (metric, surrogate) or (condition, metric) -> the figure with its units.
    """

    samples: dict[tuple[str, str], Sample]

    def sample(self, first: str, second: str) -> Sample:
        """A figure with its units; one without units where there are no rows."""
        return self.samples.get((first, second), _NOTHING)

    def interval(self, first: str, second: str) -> Interval:
        """A figure with its interval over units."""
        return self.sample(first, second).interval()


@dataclass(frozen=True, kw_only=True)
class DecodedPart(Samples):
    """One model and strategy.

    Attributes:
        model, strategy: as in the rows.
    """

    model: str
    strategy: str

    @property
    def key(self) -> tuple[str, str]:
        """Model and strategy."""
        return self.model, self.strategy

    @property
    def what(self) -> str:
        """Model and strategy, for a sentence."""
        return f"{self.model}, {self.strategy}"


def leading(found: Sequence[DecodedPart]) -> Leading:
    """Model and strategy as the first columns of a table, where they vary."""
    return Leading(("model", "strategy"), [part.key for part in found])
