"""Declarations of the measures that only the experiment `count-ablation` computes."""

from harness.core.registry import register

register.measure(
    "loss_prose",
    unit="nats",
    label="loss on prose",
    about="loss of the model, or of what is left of it, on prose, nats per token",
)
register.measure(
    "loss_model_text",
    unit="nats",
    label="loss on the model's text",
    about="loss on the model's own text at temperature 1, nats per token",
)
