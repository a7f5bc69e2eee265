"""Sentences put several times into the context: how fast does a model learn to copy them? Start at `plan`."""
