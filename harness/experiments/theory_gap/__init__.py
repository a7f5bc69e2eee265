"""Experiment `theory-gap`."""
