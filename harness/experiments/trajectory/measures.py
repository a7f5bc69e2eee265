"""Declarations of the measures that only the experiment `trajectory` computes."""

from harness.core.registry import register

register.measure(
    "share",
    unit="share",
    about="frequency of token 0 on one path",
)
register.measure(
    "mean_share",
    unit="share",
    label="mean frequency",
    about="frequency of token 0, mean over paths",
)
register.measure(
    "median_share",
    unit="share",
    label="median frequency",
    about="frequency of token 0, median over paths",
)
register.measure(
    "square_share",
    unit="share",
    label="mean squared frequency",
    about="squared frequency of token 0, mean over paths",
)
register.measure(
    "won",
    unit="share",
    about="share of paths on which the token leads",
)
register.measure(
    "both_win",
    unit="share",
    reference="1",
    label="either wins",
    about="share of bistable points where each token leads some path",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
register.measure(
    "coexistence_gap",
    unit="share",
    reference="0",
    label="off coexistence",
    about="frequency of token 0 less its share in coexistence, over all points",
)
register.measure(
    "coexistence_spread",
    unit="share",
    label="spread in coexistence",
    about="the same as coexistence_gap, mean of the absolute value",
)
register.measure(
    "urn_moment_{k}",
    unit="share",
    label="moment {k} of the urn",
    about="moment {k} of the frequency of a token in the Polya urn, P uniform",
)
register.measure(
    "pair_growth",
    unit="slope",
    label="growth of pairs",
    about="exponent of growth of the number of a pair of tokens along a path",
)
register.measure(
    "log_p_error",
    unit="nats",
    label="error of log P",
    about="median error of log P fitted to one path, where it can be fitted",
)
register.measure(
    "error_rate",
    unit="slope",
    label="slope of the error",
    about="log-log slope of the error of log P along the path",
)
