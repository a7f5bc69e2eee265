"""Kinds of the paper's experiments."""

PAPER_KINDS = ("equivalence", "coverage", "sample-complexity", "trajectory", "winners", "positions", "theory-gap")
