"""What the units of `one-layer` cost."""

from __future__ import annotations

from harness.runs.costs import Cost
from harness.runs.units import Unit

TRAINED, WALKED = 7e-8, 1.5e-6
"""Seconds per observation, token of a prompt and token of the vocabulary; and per step of a walk."""


def cost(unit: Unit) -> Cost:
    """Training, fits, and walks of model and chains."""
    s = unit.settings
    size = (s["observations"] + s["held_out_prompts"]) * s["prompt_length"] * s["vocab_size"]
    walks = s["rollout_prompts"] * s["rollout_steps"] * s["rollout_seeds"] * s["vocab_size"]
    return Cost(seconds=0.2 + TRAINED * size + WALKED * walks)
