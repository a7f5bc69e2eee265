"""Experiment `coverage`."""
