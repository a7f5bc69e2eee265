"""How large a difference between walks and the model would not matter: named before any run, in one place."""

from __future__ import annotations

MARGINS = {"seq_rep_1": 0.05, "seq_rep_4": 0.05, "above_half": 0.05, "loop_share": 0.05, "new_tokens": 0.05}
"""Measure -> margin, in its unit. Equivalence is tested within (-margin, margin)."""
