"""Declarations of the measures that only the experiment `equivalence` computes."""

from harness.core.registry import register

register.measure(
    "equivalence_error_masked",
    unit="probability",
    label="error, masked",
    about="the same as equivalence_error through the classifier that is masked to the context",
)
register.measure(
    "equivalence_error_eps",
    unit="eps cond(E)",
    label="error in round-off",
    about="the same as equivalence_error in units of the round-off of solving with E",
)
register.measure(
    "negative_share_outside",
    unit="share",
    reference="0.5",
    label="negative outside",
    about="share of probabilities outside the context that round-off makes negative",
)
register.measure(
    "round_trip_error",
    unit="probability",
    label="error of the round trip",
    about="largest change of a transition probability from weights to chain, to weights and back",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
register.measure(
    "outside_share",
    unit="share",
    label="outside the subspace",
    about="share of the norm of W outside the subspace that the chain determines",
)
