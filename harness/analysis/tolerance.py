"""Tolerances of a gate: how much worse a figure may be, and which figures may be new or missing."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from harness.config.messages import describe
from harness.config.reading import read_yaml
from harness.config.strict import Strict
from harness.core import registry
from harness.core.errors import UsageError, nearest

Direction = Literal["lower", "higher", "neutral"]

# Relative to the baseline. Reruns on the same data differ in the last digits only.
RELATIVE_TOLERANCE = 0.02


class Allowance(Strict):
    """How much worse a metric may be before the gate fails; the larger of the two counts."""

    relative: float | None = Field(default=None, ge=0)
    absolute: float | None = Field(default=None, ge=0)
    direction: Literal["lower", "higher", "neutral", "same"] | None = None


class Pattern(Strict):
    """Which figures a declaration is about; `*` matches anything."""

    experiment: str = "*"
    model: str = "*"
    strategy: str = "*"
    surrogate: str = "*"
    metric: str = "*"

    def fits(self, figure: dict[str, Any]) -> bool:
        """Does a figure, given by its factors, meet the pattern?"""
        return all(fnmatchcase(str(figure.get(name) or ""), getattr(self, name)) for name in type(self).model_fields)


class Tolerance(Strict):
    """The content of a tolerance file.

    Attributes:
        relative: of the baseline, for metrics that say nothing else.
        level: coverage of the intervals, all figures of the gate together.
        metrics: metric -> its allowed change.
        new, missing, ignore: figures that may be new, may be gone, or are not looked at.
    """

    relative: float = Field(default=RELATIVE_TOLERANCE, ge=0)
    level: float = Field(default=0.95, gt=0, lt=1)
    metrics: dict[str, Allowance] = Field(default_factory=dict)
    new: tuple[Pattern, ...] = ()
    missing: tuple[Pattern, ...] = ()
    ignore: tuple[Pattern, ...] = ()

    def allowed(self, name: str, baseline: float) -> float:
        """How much worse than a baseline value a metric may be, in its own unit."""
        own = self.metrics.get(name, Allowance())
        relative = self.relative if own.relative is None else own.relative
        declared = registry.measure(name)
        known = declared.absolute if declared else 0.0
        absolute = known if own.absolute is None else own.absolute
        return max(relative * abs(baseline), absolute)

    def direction(self, name: str) -> Direction | Literal["same"]:
        """Which direction is better; `same` where any change is worse."""
        declared = registry.measure(name)
        known: Direction = (declared.better if declared else None) or "neutral"
        return self.metrics.get(name, Allowance()).direction or known


def load_tolerance(path: Path | None) -> Tolerance:
    """Read a tolerance file; without one, the tolerances that the measures declare.

    Raises:
        UsageError: one line that names the file, the key and the nearest right name.
    """
    if path is None:
        return Tolerance()
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UsageError(f"{path}: a tolerance file is a mapping of keys, this is {type(data).__name__}")
    try:
        found = Tolerance.model_validate(data)
    except ValidationError as error:
        raise UsageError(describe(error, Tolerance, data, str(path))) from None
    for name in found.metrics:
        if registry.measure(name) is None:
            raise UsageError(f"{path}: metrics: unknown metric {name!r}{nearest(name, registry.measures())}")
    return found
