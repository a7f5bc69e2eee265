"""Names that rows have: of surrogates with their conditions, of laws that they are fitted to, of what frames them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LOGIT = "context-logit"
"""The ladder: a rung of it is chosen."""
LOGITS = (LOGIT, "context-logit-closed")
DECODED, RAW = "decoded", "raw"
"""Fitted to the model's law after the decoding strategy, and before it."""
CONSTANT, NEVER = "constant", "never-repeats"
"""Always writes one training continuation; repeats nothing."""
BASE_RATE, POSITION = "base-rate", "position-only"
"""Forecasts that know nothing of the text."""
BINS = 10
"""Of equal width, of forecasts: sums of all folds can be added."""
TRAINING_ENERGY = "training_energy"
"""The metric that a rung is chosen by."""


@dataclass(frozen=True)
class Source:
    """Whose continuations are judged: a surrogate with its condition.

    `without` is what was left out of its last rung, `refined` how the fit of a rung differs from the ladder's.
    """

    name: str
    law: str = ""
    rung: str = ""
    t0: int = 0
    without: str = ""
    refined: str = ""

    @property
    def condition(self) -> dict[str, Any] | None:
        """Of rows."""
        parts = {"law": self.law, "rung": self.rung, "t0": self.t0, "without": self.without}
        parts |= {"refined": self.refined}
        return {key: value for key, value in parts.items() if value} or None
