"""Declarations of the measures that only the experiment `depth` computes."""

from harness.core.registry import register

register.measure(
    "held_out_loss",
    unit="nats",
    better="lower",
    label="held-out loss",
    about="loss on held-out sequences, nats per token",
)
register.measure(
    "loss_above_best",
    unit="nats",
    better="lower",
    reference="0",
    label="above the best",
    about="held-out loss less that of the best predictor there is, which knows how sequences are drawn",
)
register.measure(
    "loss_off_training",
    unit="nats",
    reference="0",
    label="held-out less training loss",
    about="loss on held-out sequences less that on as many training sequences: what was memorised",
)
register.measure(
    "training_tokens",
    unit="tokens",
    label="tokens learned from",
    about="tokens of the training sequences that were seen",
)
register.measure(
    "stopped_early", unit="share", label="stopped early", about="share of trainings that held-out loss ended"
)
register.measure(
    "depth_change",
    unit="share",
    reference="0",
    label="change of explained",
    about="explained share less that of the models of least depth, paired by repetition",
)
register.measure(
    "rounded_change",
    unit="share",
    reference="0",
    label="change by rounding",
    about="explained share of the rounded copy less that of the model, paired by repetition",
)
