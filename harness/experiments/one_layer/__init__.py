"""Experiment `one-layer`."""
