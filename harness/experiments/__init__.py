"""Experiments: each kind turns a config into units, and a unit into rows."""
