"""One file per surrogate: `heads/` for attention heads, `next_token/` for language models.

What they share is in `_fitting/`. Start with `base.py`, then `_fitting/counts.py`.
"""

LADDER = (
    "counts",
    "distance",
    "bigram",
    "bigram-restricted",
    "in-context-bigram",
    "n-gram",
    "shuffled-weights",
    "ccmc-weights",
    "pccmc-weights",
    "ccmc-fit",
    "pccmc-fit",
    "ccmc-bilinear",
    "ccmc-head",
    "ccmc-mixture",
    "exact-keys",
    "exact-queries",
)
