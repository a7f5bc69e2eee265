"""Experiment `generation`."""
