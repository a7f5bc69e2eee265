"""Declarations of the measures that more than one experiment computes."""

from harness.core.registry import register

register.measure(
    "explained",
    unit="share",
    better="higher",
    pooled="explained",
    of="kl",
    reference="counts",
    headline_of="heads",
    absolute=0.0001,
    about="share of KL(counts) that the surrogate explains; 1 is all of it, below 0 worse than counts",
)
register.measure(
    "log_probability",
    unit="nats",
    label="log-probability",
    about="log-probability that the model gives to the tokens it wrote, nats per token",
)
register.measure(
    "entropy",
    unit="nats",
    label="entropy of the next token",
    about="entropy of the model's next token, nats",
)
register.measure(
    "ridge",
    unit="nats",
    about="strength of the prior that was chosen inside the training texts",
)
register.measure(
    "cross_entropy",
    unit="nats",
    better="lower",
    absolute=1e-05,
    label="cross-entropy",
    about="loss of the chain of a head on the training texts, nats per token",
)
register.measure(
    "mean_field_jaccard",
    unit="share",
    better="higher",
    absolute=0.0001,
    label="overlap with the mean field",
    about="overlap of the model's winners and those that the mean field predicts",
)
register.measure(
    "mean_field_precision",
    unit="share",
    better="higher",
    absolute=0.0001,
    label="precision of the mean field",
    about="share of the mean field's winners that are the model's",
)
register.measure(
    "mean_field_recall",
    unit="share",
    better="higher",
    absolute=0.0001,
    label="recall of the mean field",
    about="share of the model's winners that the mean field predicts",
)
register.measure(
    "mean_field_size",
    unit="tokens",
    label="winners of the mean field",
    about="number of winners that the mean field predicts",
)
register.measure(
    "equivalence_error",
    unit="probability",
    better="lower",
    absolute=1e-08,
    label="error of the equivalence",
    about="largest difference of a probability between model and chain read off its weights",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
register.measure(
    "lost_mass",
    unit="probability",
    better="lower",
    absolute=1e-08,
    label="lost mass",
    about="probability that fell outside the context or below 0 and was taken away",
)
register.measure(
    "excess_risk",
    unit="nats",
    better="lower",
    headline_of="one-layer",
    absolute=1e-05,
    label="excess risk",
    about="KL divergence from the teacher, nats per token",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
register.measure(
    "excess_risk_ratio",
    unit="ratio",
    reference="1",
    label="excess risk / prediction",
    about="excess risk over its prediction, (number of identified parameters) / 2n",
)
register.measure(
    "training_gap",
    unit="nats",
    better="lower",
    absolute=1e-08,
    label="gap of training",
    about="nats per observation between the trained model and the maximum likelihood of its data",
)
register.measure(
    "no_mle",
    unit="share",
    label="without MLE",
    about="share of samples whose likelihood has no maximum",
)
register.measure(
    "margin_seq_rep_4",
    unit="share",
    label="margin of seq_rep_4",
    about="difference in the share of repeated 4-grams within which equivalence is tested, as the config names it",
)
