"""Experiment `heads`."""
