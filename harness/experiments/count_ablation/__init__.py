"""Experiment `count-ablation`."""
