"""Experiment `depth`."""
