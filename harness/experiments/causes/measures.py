"""Declarations of the measures that only the experiment `causes` computes."""

from harness.core.registry import register

register.measure(
    "loss_rise",
    unit="nats",
    label="rise of the loss",
    about="loss per token under an intervention, less that of the model as it is, on the same text",
    source="this project",
)
register.measure(
    "loss_without",
    unit="nats",
    label="loss",
    about="loss per token of the model as it is on a text that losses are matched on",
)
register.measure(
    "strength", unit="number", label="strength", about="of an intervention, at which the loss rises by its level"
)
register.measure(
    "largest_rise",
    unit="nats",
    label="largest rise",
    about="largest rise of the loss that an intervention reaches up to its full strength",
)
register.measure(
    "heads_changed", unit="heads", label="heads changed", about="heads of a layer that an intervention changes"
)
register.measure(
    "context_rep_4",
    unit="share",
    label="4-grams of the context",
    about="share of 4-grams of a continuation that occurred earlier, in its prompt or in itself",
    source="this project",
)
register.measure(
    "repeats", unit="number", label="repeats", about="how often a sentence stands in the context that sets it up"
)
