"""How large a difference between walks and the model would not matter: named before any run, in one place."""

from __future__ import annotations

MARGINS = {
    "seq_rep_1": 0.05,
    "seq_rep_4": 0.05,
    "above_half": 0.05,
    "loop_share": 0.05,
    "loop_onset": 16.0,
    "loop_period": 4.0,
    "new_tokens": 0.05,
}
"""Measure -> margin, in its unit. Equivalence is tested within (-margin, margin)."""

AT = {"temperature=1": {"seq_rep_4": 0.01, "above_half": 0.01}}
"""Strategy -> measure -> margin with that strategy: where the model hardly repeats, a wide one would prove nothing."""


def margins_at(strategy: str) -> dict[str, float]:
    """Measure -> margin with one strategy."""
    return {**MARGINS, **AT.get(strategy, {})}
