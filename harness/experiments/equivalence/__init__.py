"""Experiment `equivalence`."""
