"""Experiment `trajectory`."""
