"""Declarations of the measures that only the experiment `one-layer` computes."""

from harness.core.registry import register

register.measure(
    "excess_risk_over_model",
    unit="nats",
    better="lower",
    absolute=1e-05,
    label="excess risk over the model",
    about="KL divergence from the trained model to the fitted chain, nats per token",
)
