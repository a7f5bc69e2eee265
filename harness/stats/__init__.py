"""Intervals, tests and pooling: arrays or tables of rows in, records out. Start with `intervals.py`."""
