"""What every metric means to a reader: which direction is better, and how much worse is nothing to worry about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from harness.core.errors import UsageError, nearest

Direction = Literal["lower", "higher", "neutral"]

# Relative to the baseline. Reruns on the same data differ in the last digits only.
RELATIVE_TOLERANCE = 0.02


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as in the rows.
        direction: which values of a surrogate are better; `neutral` where neither are.
        about: one line for reports.
        absolute: differences up to this size are rounding, not news.
    """

    name: str
    direction: Direction
    about: str
    absolute: float = 0.0


_DECLARED: tuple[tuple[Direction, float, dict[str, str]], ...] = (
    (
        "lower",
        1e-5,
        {
            "kl": "KL divergence from the model to the surrogate, nats per query, over tokens of the context",
            "kl_with_sink": "the same as kl with the first position kept as a state of its own",
            "kl_position": "KL divergence over positions instead of tokens, nats per query",
            "total_variation": "total variation distance between model and surrogate",
            "excess_risk": "KL divergence from the teacher, nats per token",
            "excess_risk_over_model": "KL divergence from the trained model to the fitted chain, nats per token",
            "dominance_area": "distance between the dominance curves of model and surrogate",
            "kl_with_escape": "KL divergence over all tokens, where a surrogate may leave the context, nats per token",
            "cross_entropy": "loss of the chain of a head on the training texts, nats per token",
        },
    ),
    ("lower", 0.0, {"lock_in_error": "distance of the times from which the winners of model and surrogate dominate"}),
    (
        "lower",
        1e-8,
        {
            "equivalence_error": "largest difference of a probability between model and chain read off its weights",
            "training_gap": "nats per observation between the trained model and the maximum likelihood of its data",
            "lost_mass": "probability that fell outside the context or below 0 and was taken away",
        },
    ),
    (
        "higher",
        1e-4,
        {
            "explained": "share of KL(counts) that the surrogate explains; 1 is all of it, below 0 worse than counts",
            "explained_with_sink": "the same with the first position kept as a state of its own",
            "top_token": "share of queries whose most attended or likeliest token is the same",
            "winner_jaccard": "overlap of the winner sets of model and surrogate",
            "winner_precision": "share of the surrogate's winners that are the model's",
            "winner_recall": "share of the model's winners that are the surrogate's",
            "mean_field_jaccard": "overlap of the model's winners and those that the mean field predicts",
            "mean_field_precision": "share of the mean field's winners that are the model's",
            "mean_field_recall": "share of the model's winners that the mean field predicts",
        },
    ),
    (
        "neutral",
        0.0,
        {
            "seq_rep_1": "share of repeated tokens in a continuation",
            "seq_rep_2": "share of repeated 2-grams in a continuation",
            "seq_rep_3": "share of repeated 3-grams in a continuation",
            "seq_rep_4": "share of repeated 4-grams in a continuation",
            "distinct_2": "share of distinct 2-grams in a continuation",
            "diversity": "product over n = 2..4 of the share of distinct n-grams",
            "rep_16": "share of positions whose token occurs among the 16 before",
            "rep_32": "share of positions whose token occurs among the 32 before",
            "rep_128": "share of positions whose token occurs among the 128 before",
            "argmax_repeat_rate": "share of positions whose likeliest token occurs among the 32 before",
            "window_entropy": "entropy of the trailing window, nats",
            "effective_vocabulary": "exp of the entropy of the trailing window",
            "zipf_slope": "slope of log frequency on log rank",
            "compression_ratio": "compressed size of a continuation over its size",
            "loop_share": "share of a continuation inside its final loop",
            "loop_onset": "where the final loop starts",
            "loop_period": "length of the final loop",
            "winner_size": "number of tokens that hold 90 % of the trailing window",
            "mean_field_size": "number of winners that the mean field predicts",
            "dominance": "share of the winners among the last tokens",
            "time_to_dominance": "position from which the winners hold 90 % for good",
            "return_time": "median gap between visits of a winner",
            "loser_exponent": "slope of log count on log time of a token that falls behind",
            "length": "tokens in a continuation",
            "in_context_mass": "probability that the model gives to tokens of its context",
            "escape": "how often a surrogate leaves the context",
            "mixture_weight": "weight of a head's chain, or of the counts, in ccmc-mixture",
            "log_probability": "log-probability that the model gives to the tokens it wrote, nats per token",
            "entropy": "entropy of the model's next token, nats",
            "loss_prose": "loss of the model, or of what is left of it, on prose, nats per token",
            "loss_model_text": "the same on the model's own text at temperature 1",
            "sink_share": "attention on the first position",
            "row_entropy": "entropy of an attention row over positions, nats",
            "token_entropy": "entropy of an attention row over tokens, nats",
            "previous_token_score": "attention on the token just before the query, the first position left out",
            "induction_score": "attention on what followed earlier occurrences of the query's token",
            "duplicate_token_score": "attention on earlier occurrences of the query's token",
            "content_score": "share of attention on the first positions that differs from text to text",
            "unseen_share": "share of queries without a static input from training texts",
            "ridge": "strength of the prior that was chosen inside the training texts",
        },
    ),
)

METRICS: dict[str, Metric] = {
    name: Metric(name, direction, about, absolute)
    for direction, absolute, group in _DECLARED
    for name, about in group.items()
}

# Floor, ceiling and control: they frame a figure, a change of theirs is neither better nor worse.
FRAMES = ("model-shuffled", "model-reseeded", "shuffled-weights", "exact-keys", "exact-queries")


def find_metric(name: str) -> Metric | None:
    """A registered metric by its name; `winner_jaccard_at_3` is winner_jaccard of the 3 most frequent tokens."""
    if name in METRICS:
        return METRICS[name]
    top = re.fullmatch(r"(winner_(?:jaccard|precision|recall|size))_at_(\d+)", name)
    if top is None:
        return None
    base = METRICS[top[1]]
    return replace(base, name=name, about=f"{base.about}, the winners being the {top[2]} most frequent tokens")


def metric(name: str) -> Metric:
    """What is known about a metric; one that is not registered is neutral."""
    return find_metric(name) or Metric(name, "neutral", "not registered in harness.core.metrics")


def sign(name: str) -> int:
    """+1 where higher is better, -1 where lower is, 0 where neither is."""
    return {"higher": 1, "lower": -1, "neutral": 0}[metric(name).direction]


def check_metrics(wanted: Iterable[str], present: Iterable[str]) -> None:
    """Refuse a metric that the rows do not have.

    Raises:
        UsageError: names the nearest metric that is there.
    """
    known = sorted(set(present))
    for name in wanted:
        if name not in known:
            there = " (not in these runs)" if find_metric(name) else ""
            raise UsageError(f"--metric {name!r}{there}{nearest(name, known)}")
