"""The ladder of surrogates, one file each, in the order in which tables show them."""

LADDER = (
    "counts",
    "distance",
    "in-context-bigram",
    "shuffled-weights",
    "ccmc-weights",
    "pccmc-weights",
    "ccmc-fit",
    "pccmc-fit",
)
