"""Experiment `repetition`: what a model repeats, judged so that a right answer wins. Start reading at `units.py`."""
