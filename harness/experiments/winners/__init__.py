"""Experiment `winners`."""
