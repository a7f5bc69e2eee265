"""Names of what takes the place of heads while a model runs, and of rules for the first position."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core import registry
from harness.core.declarations import Declaration

MEAN_ROW, UNIFORM, MEAN_OUTPUT = "mean-row", "uniform", "mean-output"
LEADER, LEVELS, REAL = "leader", "levels", "real"
"""Rules for the first position; the last is a control that reads the running head."""
CONTROLS = (MEAN_ROW, UNIFORM, MEAN_OUTPUT)
"""Arms that are no surrogates of heads, in the order of tables."""


def used(names: Sequence[str]) -> tuple[Declaration, ...]:
    """The declarations of surrogates of heads, and of those that they are shrunk to."""
    known = registry.surrogates("heads")
    own = [name for name in names if name not in CONTROLS]
    priors = [known[name].prior for name in own if known[name].prior in known]
    return tuple(known[name] for name in dict.fromkeys([*own, *priors]))
