"""Declarations of the measures that only the experiment `winners` computes."""

from harness.core.registry import register

register.measure(
    "l1",
    unit="L1 distance",
    label="L1",
    about="L1 distance of the mean field's frequencies from those of the path",
)
register.measure(
    "l1_ceiling",
    unit="L1 distance",
    label="L1, ceiling",
    about="L1 distance of a second simulation's frequencies from those of the path",
)
register.measure(
    "l1_over_ceiling",
    unit="L1 distance",
    label="L1 over the ceiling",
    about="L1 distance of the mean field less that of a second simulation",
)
register.measure(
    "jaccard",
    unit="share",
    label="overlap of winners",
    about="overlap of the winner sets of mean field and path",
)
register.measure(
    "jaccard_ceiling",
    unit="share",
    label="overlap, ceiling",
    about="overlap of the winner sets of a second simulation and the path",
)
register.measure(
    "exponent_correlation",
    unit="correlation",
    label="correlation of decay",
    about="rank correlation of the decay of tokens, mean field against path",
)
register.measure(
    "odds",
    unit="share",
    about="share of paths that reach the likeliest winner set",
)
register.measure(
    "odds_gap",
    unit="share",
    reference="0",
    label="odds off prediction",
    about="the same less its predicted odds",
)
register.measure(
    "unsettled",
    unit="share",
    about="share of chains whose mean field does not settle",
)
register.measure(
    "stable_sets",
    unit="sets",
    label="stable sets",
    about="number of winner sets that the mean field can reach",
)
register.measure(
    "absorbed",
    unit="share",
    reference="1",
    about="paths that a finite window leaves one token: how many of a repetition, or their share of all",
)
register.measure(
    "absorption_time",
    unit="tokens",
    label="time to absorption",
    about="median time until a finite window holds one token",
)
