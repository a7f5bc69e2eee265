"""Declarations of the measures that only the experiment `in-the-loop` computes."""

from harness.core.registry import register

register.measure(
    "nats_lost",
    unit="nats",
    better="lower",
    absolute=0.001,
    label="nats lost",
    about="loss per token of the model with heads replaced, less its loss without, on the same text",
    source="this project",
)
register.measure(
    "nats_lost_written",
    unit="nats",
    label="nats lost on its own tokens",
    about="nats lost on the tokens that the model wrote, those of the prompt left out",
)
register.measure(
    "next_token_kl",
    unit="nats",
    better="lower",
    absolute=0.001,
    label="KL of the next token",
    about="KL divergence of the next token with heads replaced from that of the model, nats per token",
)
register.measure(
    "same_top_token",
    unit="share",
    better="higher",
    absolute=0.001,
    label="same top token",
    about="share of contexts in which the most likely next token stays the same with heads replaced",
)
register.measure(
    "training_kl",
    unit="nats",
    label="KL on training texts",
    about="KL divergence of replaced rows from the head's own, with the first position, on training texts no fit reads",
)
register.measure(
    "nats_lost_alone",
    unit="nats",
    label="nats lost alone",
    about="nats lost when one head alone is replaced",
)
register.measure(
    "kl_alone",
    unit="nats",
    better="lower",
    label="KL alone",
    about="KL divergence of the next token when one head alone is replaced, nats per token",
)
register.measure("heads_in_layer", unit="heads", label="heads of the layer", about="heads of a set that lie in a layer")
register.measure(
    "outside_vocabulary",
    unit="share",
    label="outside the vocabulary",
    about="share of tokens that no training text holds: their static input is the fall-back",
)
