"""Attention of real models: capture, blocks of queries, parity with eager, packing, static inputs, ablations.

Nothing here depends on a surrogate. Start with `capture.py`, then `blocks.py`.
"""
