"""Declarations of the measures that only the experiment `coverage` computes."""

from harness.core.registry import register

register.measure(
    "free_directions",
    unit="directions",
    label="free directions",
    about="dimension of the solution set, from the graph of co-occurring tokens",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
register.measure(
    "nullity",
    unit="directions",
    label="null space",
    about="dimension of the solution set, from the null space of the Hessian",
)
register.measure(
    "nullity_gap",
    unit="directions",
    reference="0",
    label="difference of dimensions",
    about="largest difference of the two dimensions of the solution set",
)
register.measure(
    "identified_error",
    unit="squared logits",
    better="lower",
    label="error, identified",
    about="squared error of the surrogate's logits in identified directions",
)
register.measure(
    "identified_error_ratio",
    unit="ratio",
    reference="1",
    label="error, identified / prediction",
    about="the same over its prediction, the trace of the inverse Fisher information",
)
register.measure(
    "free_error",
    unit="squared logits",
    label="error, free",
    about="squared error of the logits in directions that the data leave free",
)
register.measure(
    "free_error_ratio",
    unit="ratio",
    reference="1",
    label="error, free / teacher",
    about="the same over the square of the teacher's own logits there",
)
register.measure(
    "free_moved",
    unit="logits",
    reference="0",
    label="move, free",
    about="largest move of trained model and fit along free directions",
)
register.measure(
    "trained_free",
    unit="logits",
    reference="0",
    label="move of the model, free",
    about="largest move of the trained model along free directions",
)
register.measure(
    "fit_free",
    unit="logits",
    reference="0",
    label="move of the fit, free",
    about="largest move of the fit along free directions",
)
register.measure(
    "trained_gap",
    unit="standard errors",
    reference="0",
    label="gap to the fit",
    about="largest gap between trained model and fit in identified logits",
)
