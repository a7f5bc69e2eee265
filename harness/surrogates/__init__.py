"""The ladder of surrogates, one file each, in the order in which tables show them."""

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
