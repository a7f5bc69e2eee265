"""Weights and what is done with a whole model: loading, generation, the one-layer model and its training.

Start with `catalogue.py` (names to files), then `loading.py`.
"""
