"""One file per surrogate: `heads/` for attention heads, `next_token/` for language models.

What they share is in `_fitting/`. Start with `base.py`, then `_fitting/counts.py`.
"""
