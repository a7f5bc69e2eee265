"""Experiment `causes`."""
