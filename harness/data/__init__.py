"""Prompts, datasets and texts, and where they come from. Start with `prompts.py`."""
