"""Measures: compare two distributions on the same contexts, or trajectories from the same prompts."""

from harness.core.records import Interval
from harness.measures.agreement import winner_measures
from harness.measures.fidelity import in_context_mass, kl, kl_from_logs, top_token, total_variation
from harness.measures.loops import Loop, find_loop
from harness.measures.measurement import Measurement
from harness.measures.repetition import repetition_measures
from harness.measures.winners import own_winner_measures, winner_set

__all__ = [
    "Interval",
    "Loop",
    "Measurement",
    "find_loop",
    "in_context_mass",
    "kl",
    "kl_from_logs",
    "own_winner_measures",
    "repetition_measures",
    "top_token",
    "total_variation",
    "winner_measures",
    "winner_set",
]
