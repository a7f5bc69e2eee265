"""Experiment `positions`."""
