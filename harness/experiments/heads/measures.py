"""Declarations of the measures that only the experiment `heads` computes."""

from harness.core.registry import register

register.measure(
    "explained_with_sink",
    unit="share",
    better="higher",
    pooled="explained",
    of="kl_with_sink",
    reference="counts",
    absolute=0.0001,
    label="explained with sink",
    about="the same as explained with the first position kept as a state of its own",
)
register.measure(
    "row_entropy",
    unit="nats",
    label="entropy over positions",
    about="entropy of an attention row over positions, nats",
)
register.measure(
    "token_entropy",
    unit="nats",
    label="entropy over tokens",
    about="entropy of an attention row over tokens, nats",
)
register.measure(
    "unseen_share",
    unit="share",
    label="without static input",
    about="share of queries without a static input from training texts",
)
