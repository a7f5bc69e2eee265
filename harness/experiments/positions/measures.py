"""Declarations of the measures that only the experiment `positions` computes."""

from harness.core.registry import register

register.measure(
    "gradient",
    unit="nats",
    about="largest entry of the gradient when training stopped, nats",
)
register.measure(
    "one_left",
    unit="share",
    reference="1",
    label="one token left",
    about="share of paths whose last 128 tokens are one token, with a fading memory",
)
register.measure(
    "top_share",
    unit="share",
    label="share of the top token",
    about="share of the last 128 tokens that the most frequent has",
)
register.measure(
    "winner_entropy",
    unit="nats",
    label="entropy of the winner",
    about="entropy over paths of which token that is, nats",
)
