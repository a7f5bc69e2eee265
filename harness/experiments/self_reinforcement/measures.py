"""Declarations of the measures that only the experiment `self-reinforcement` computes."""

from harness.core.registry import register

register.measure(
    "sentence_probability",
    unit="probability",
    label="probability of the sentence",
    about="mean probability of a sentence's tokens after k repetitions of it",
    source="Xu et al., Learning to Break the Loop, 2022",
)
register.measure(
    "sentence_log_probability",
    unit="nats",
    label="log-probability of the sentence",
    about="mean log-probability of a sentence's tokens after k repetitions of it",
    source="Xu et al., Learning to Break the Loop, 2022",
)
register.measure(
    "winning_rate",
    unit="share",
    label="winning rate",
    about="share of a sentence's tokens that are more likely after k repetitions than in the first",
    source="Xu et al., Learning to Break the Loop, 2022",
)
register.measure(
    "probability_slope",
    unit="probability",
    label="slope per doubling",
    about="least-squares slope of the mean probability of a sentence's tokens per doubling of k, from k = 1 on",
    source="this project",
)
register.measure(
    "log_probability_slope",
    unit="nats",
    label="log slope per doubling",
    about="the same of the mean log-probability",
    source="this project",
)
register.measure(
    "margin_probability_slope",
    unit="probability",
    label="margin of the slope",
    about="slope of the probability per doubling of k within which equivalence is tested, as the config names it",
)
