"""Experiment `sample-complexity`."""
