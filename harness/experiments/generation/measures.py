"""Declarations of the measures that only the experiment `generation` computes."""

from harness.core.registry import register

register.measure(
    "kl_with_escape",
    unit="nats",
    better="lower",
    absolute=1e-05,
    label="KL with escape",
    about="KL divergence over all tokens, where a surrogate may leave the context, nats per token",
)
register.measure(
    "escape",
    unit="share",
    about="how often a surrogate leaves the context",
)
register.measure(
    "mixture_weight",
    unit="share",
    label="weight in the mixture",
    about="weight of a head's chain, or of the counts, in ccmc-mixture",
)
