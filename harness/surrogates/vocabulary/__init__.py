"""Surrogates of next tokens over the whole vocabulary, one file each.

They speak of tokens that the context does not hold, too. What they share is `surrogates/vocabulary_base.py`.
"""
