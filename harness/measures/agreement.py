"""How far two continuations of a prompt agree about their winners, and about when these dominate.

The set of a single token is common and easy to agree on, so every agreement comes with the size of the set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from numpy.typing import ArrayLike

from harness.core.registry import register
from harness.measures.measurement import Measurement, shorter_than
from harness.measures.sequences import as_tokens
from harness.measures.winners import SHORTEST, dominance, dominance_area, time_to_dominance, top_tokens, winner_set


@register.measure(
    "winner_jaccard",
    unit="share",
    better="higher",
    absolute=1e-4,
    label="overlap of winners",
    about="overlap of the winner sets of model and surrogate",
)
def jaccard(real: ArrayLike, surrogate: ArrayLike) -> Measurement:
    """Size of the intersection of two sets over the size of their union.

    Args:
        real: token ids of the real set.
        surrogate: token ids of the surrogate's set.

    Returns:
        A number in [0, 1]; missing where a set is empty.
    """
    return _agreement(real, surrogate, lambda a, b: len(a | b))


@register.measure(
    "winner_precision",
    unit="share",
    better="higher",
    absolute=1e-4,
    label="precision of winners",
    about="share of the surrogate's winners that are the model's",
)
def precision(real: ArrayLike, surrogate: ArrayLike) -> Measurement:
    """Share of the surrogate's set that belongs to the real set.

    Args:
        real: token ids of the real set.
        surrogate: token ids of the surrogate's set.

    Returns:
        A number in [0, 1]; missing where a set is empty.
    """
    return _agreement(real, surrogate, lambda a, b: len(b))


@register.measure(
    "winner_recall",
    unit="share",
    better="higher",
    absolute=1e-4,
    label="recall of winners",
    about="share of the model's winners that are the surrogate's",
)
def recall(real: ArrayLike, surrogate: ArrayLike) -> Measurement:
    """Share of the real set that belongs to the surrogate's set.

    Args:
        real: token ids of the real set.
        surrogate: token ids of the surrogate's set.

    Returns:
        A number in [0, 1]; missing where a set is empty.
    """
    return _agreement(real, surrogate, lambda a, b: len(a))


def winner_measures(real: ArrayLike, surrogate: ArrayLike, prompt: ArrayLike = ()) -> dict[str, Measurement]:
    """How far a surrogate's rollout agrees with the real continuation of the same prompt about the winners.

    Args:
        real: [T] the real continuation.
        surrogate: [T] the surrogate's, cut to the same length.
        prompt: [L] the prompt of both.

    Returns:
        winner_jaccard, winner_precision, winner_recall, winner_size (of the surrogate's set), dominance_area; all
        missing where T < 2.

    Raises:
        ValueError: the continuations differ in length.
    """
    truth, guess = as_tokens(real, "real"), as_tokens(surrogate, "surrogate")
    if truth.size != guess.size:
        raise ValueError(f"a real continuation of {truth.size} tokens and a surrogate's of {guess.size}: cut both")
    if truth.size < SHORTEST:
        names = ("winner_jaccard", "winner_precision", "winner_recall", "winner_size", "dominance_area")
        return dict.fromkeys(names, shorter_than(SHORTEST))
    real_set, surrogate_set = winner_set(truth), winner_set(guess)
    return {
        "winner_jaccard": jaccard(real_set, surrogate_set),
        "winner_precision": precision(real_set, surrogate_set),
        "winner_recall": recall(real_set, surrogate_set),
        "winner_size": Measurement(float(surrogate_set.size)),
        "dominance_area": dominance_area(dominance(truth, real_set, prompt), dominance(guess, surrogate_set, prompt)),
    }


register.measure(
    "winner_jaccard_at_{k}",
    unit="share",
    better="higher",
    absolute=1e-4,
    label="overlap of winners, {k} tokens",
    about="overlap of the winner sets of model and surrogate, the winners being the {k} most frequent tokens",
)
register.measure(
    "winner_precision_at_{k}",
    unit="share",
    better="higher",
    absolute=1e-4,
    label="precision of winners, {k} tokens",
    about="share of the surrogate's winners that are the model's, the winners being the {k} most frequent tokens",
)
register.measure(
    "winner_recall_at_{k}",
    unit="share",
    better="higher",
    absolute=1e-4,
    label="recall of winners, {k} tokens",
    about="share of the model's winners that are the surrogate's, the winners being the {k} most frequent tokens",
)
register.measure(
    "winner_size_at_{k}",
    unit="tokens",
    label="winners, {k} at most",
    about="number of the surrogate's winners, the winners being the {k} most frequent tokens",
)


def top_agreement(real: ArrayLike, surrogate: ArrayLike, sizes: Sequence[int]) -> dict[str, Measurement]:
    """How far the most frequent tokens agree, for sets of given sizes.

    Args:
        real: [T] the real continuation.
        surrogate: [T] the surrogate's, cut to the same length.
        sizes: how many tokens the sets hold, where the trailing windows hold as many types.

    Returns:
        For each k: winner_jaccard_at_k, winner_precision_at_k, winner_recall_at_k, and winner_size_at_k, the size of
        the surrogate's set; missing where T < 2.
    """
    measures = {}
    for k in sizes:
        truth, guess = top_tokens(real, k), top_tokens(surrogate, k)
        short = guess.size == 0
        measures[f"winner_jaccard_at_{k}"] = shorter_than(SHORTEST) if short else jaccard(truth, guess)
        measures[f"winner_precision_at_{k}"] = shorter_than(SHORTEST) if short else precision(truth, guess)
        measures[f"winner_recall_at_{k}"] = shorter_than(SHORTEST) if short else recall(truth, guess)
        measures[f"winner_size_at_{k}"] = shorter_than(SHORTEST) if short else Measurement(float(guess.size))
    return measures


@register.measure(
    "lock_in_error",
    unit="tokens",
    better="lower",
    label="error of lock-in",
    about="distance of the times from which the winners of model and surrogate dominate",
)
def lock_in_error(real: ArrayLike, surrogate: ArrayLike, prompt: ArrayLike = ()) -> Measurement:
    """Distance of the times from which the own winner sets dominate for good.

    Args:
        real: [T] the real continuation.
        surrogate: [T] the surrogate's, cut to the same length.
        prompt: [L] the prompt of both.

    Returns:
        |t - t'| in tokens; missing where one of them never locks in.
    """
    times = []
    for name, tokens in (("real", real), ("surrogate's", surrogate)):
        found = time_to_dominance(dominance(tokens, winner_set(tokens), prompt))
        if found.value is None:
            return Measurement(None, f"the {name} continuation does not lock in")
        times.append(found.value)
    return Measurement(abs(times[0] - times[1]))


def _agreement(real: ArrayLike, surrogate: ArrayLike, denominator: Callable[[set[int], set[int]], int]) -> Measurement:
    a, b = set(as_tokens(real, "real").tolist()), set(as_tokens(surrogate, "surrogate").tolist())
    if not a or not b:
        return Measurement(None, "empty winner set")
    return Measurement(len(a & b) / denominator(a, b))
