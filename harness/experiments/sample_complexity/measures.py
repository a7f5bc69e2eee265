"""Declarations of the measures that only the experiment `sample-complexity` computes."""

from harness.core.registry import register

register.measure(
    "logit_error",
    unit="squared logits",
    better="lower",
    label="error of logits",
    about="squared error of the surrogate's row-centred logits, summed over all of them",
)
register.measure(
    "logit_error_ratio",
    unit="ratio",
    reference="1",
    label="error of logits / prediction",
    about="the same over its prediction, the trace of the inverse Fisher information / n",
)
register.measure(
    "slope_in_n",
    unit="slope",
    reference="-1",
    label="slope in n",
    about="log-log slope of the excess risk in the number of observations",
)
register.measure(
    "slope_in_K",
    unit="slope",
    reference="2",
    label="slope in K",
    about="log-log slope of the excess risk in sqrt(K(K-1)), at one number of observations",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
register.measure(
    "slope_in_K_logits",
    unit="slope",
    reference="4",
    label="slope in K, logits",
    about="log-log slope of the squared error of the logits in K, at one number of observations",
)
