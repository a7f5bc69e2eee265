"""What the units of `heads` cost."""

from __future__ import annotations

from harness.experiments._shared.costs import PASS, heads_fitted, shape, texts_of
from harness.runs.costs import Cost
from harness.runs.units import Unit

SCORED = 0.01
"""Seconds of scoring a surrogate of one head, per thousand held-out tokens."""


def cost(unit: Unit) -> Cost:
    """A pass over the training texts with all fits, and one over the held-out texts with all scores."""
    s, texts = unit.settings, texts_of(unit.needs)
    layers, heads = shape(unit.local["path"])
    train, held_out = (texts.tokens(split, s["max_length"]) for split in ("train", "held_out"))
    read = held_out * PASS * (1 + max(s["layers"])) / layers
    scored = SCORED * len(s["surrogates"]) * len(s["layers"]) * heads * held_out / 1000
    return heads_fitted(unit, s["surrogates"], train) + Cost(read=read, seconds=scored)
