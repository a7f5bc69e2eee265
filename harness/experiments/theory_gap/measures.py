"""Declarations of the measures that only the experiment `theory-gap` computes; `new_tokens` is that of `repetition`."""

from harness.core.registry import register

register.measure(
    "stopping_loss",
    unit="nats",
    label="loss, held back",
    about="loss on sequences kept back for early stopping, nats per token",
)
register.measure(
    "kl_weights",
    unit="nats",
    better="lower",
    reference="0",
    absolute=1e-05,
    label="KL of weights",
    about="largest KL divergence from the model to the chain read off its weights",
)
register.measure(
    "winner_jaccard_gap",
    unit="share",
    reference="0",
    label="overlap off the ceiling",
    about="overlap of winners, ccmc-fit less the model with another seed",
)
register.measure(
    "seq_rep_4_gap",
    unit="share",
    reference="0",
    label="repeated 4-grams off the model",
    about="share of repeated 4-grams, ccmc-fit less the model",
)
register.measure(
    "rep_32_gap",
    unit="share",
    reference="0",
    label="repeats within 32 off the model",
    about="share of tokens among the 32 before, ccmc-fit less the model",
)
