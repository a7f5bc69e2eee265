"""Which tokens take a continuation over, and when.

Time t counts the tokens generated so far, from 1 to T. The winner set of a continuation is read off its trailing
window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.core.registry import register
from harness.measures.measurement import Measurement, shorter_than
from harness.measures.sequences import Tokens, as_tokens, members, return_gaps, trailing_window

DOMINANCE_WINDOW = 32
SHORTEST = 2
_EXPONENT_POINTS = 64


def winner_set(continuation: ArrayLike, share: float = 0.9) -> Tokens:
    """The smallest set of tokens that makes up a share of the trailing window.

    Args:
        continuation: [T] token ids.
        share: how much of the window the set has to cover, in (0, 1].

    Returns:
        int64 [size] token ids, the most frequent first; of equally frequent tokens the most recent first. (Two tokens
        are never equally recent, so "then lowest id" decides nothing.) Empty for fewer than two tokens.

    Raises:
        ValueError: share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    ids, counts = _ranked(continuation)
    if ids.size == 0:
        return ids
    # A quotient of integers is correctly rounded, so a share of exactly .9 passes; .9 * n need not be exact.
    covered = np.cumsum(counts) / counts.sum()
    return ids[: int(np.argmax(covered >= share)) + 1]


def top_tokens(continuation: ArrayLike, size: int) -> Tokens:
    """The most frequent tokens of the trailing window.

    Args:
        continuation: [T] token ids.
        size: how many, at least 1.

    Returns:
        int64 [at most size], in the order of `winner_set`; fewer where the window holds fewer types.

    Raises:
        ValueError: size below 1.
    """
    if size < 1:
        raise ValueError(f"a set of winners has at least one token, got {size}")
    return _ranked(continuation)[0][:size]


@register.measure(
    "winner_size", unit="tokens", label="winners", about="number of tokens that hold 90 % of the trailing window"
)
def winner_size(continuation: ArrayLike, share: float = 0.9) -> Measurement:
    """Number of tokens in the winner set.

    Args:
        continuation: [T] token ids.
        share: as in `winner_set`.

    Returns:
        The size, at least 1; missing where T < 2.

    Raises:
        ValueError: share outside (0, 1].
    """
    winners = winner_set(continuation, share)
    return Measurement(float(winners.size)) if winners.size else shorter_than(SHORTEST)


@register.measure("dominance", unit="share", about="share of the winners among the last tokens")
def dominance(
    continuation: ArrayLike, winners: ArrayLike, prompt: ArrayLike = (), window: int = DOMINANCE_WINDOW
) -> NDArray[np.float64]:
    """How much of the recent past belongs to a set of tokens, after each token of a continuation.

    The history after t generated tokens is prompt + continuation[:t]; its last `window` tokens count, or all of it
    where it is shorter. So the first entries speak about the prompt as well.

    Args:
        continuation: [T] token ids.
        winners: the set of token ids.
        prompt: [L] the tokens before the continuation.
        window: how many tokens to look back, at least 1.

    Returns:
        float64 [T] shares; entry t - 1 belongs to time t.

    Raises:
        ValueError: window below 1.
    """
    if window < 1:
        raise ValueError(f"a window has at least one token, got {window}")
    tokens = as_tokens(continuation, "continuation")
    before = as_tokens(prompt, "prompt")[-window:]
    belongs = members(np.concatenate([before, tokens]), as_tokens(winners, "winners"))
    visits = np.concatenate([[0], np.cumsum(belongs)])
    stop = before.size + np.arange(1, tokens.size + 1)
    start = np.maximum(stop - window, 0)
    return np.asarray((visits[stop] - visits[start]) / (stop - start), dtype=np.float64)


@register.measure(
    "dominance_area",
    unit="share",
    better="lower",
    absolute=1e-5,
    label="distance of dominance",
    about="distance between the dominance curves of model and surrogate",
)
def dominance_area(real: ArrayLike, surrogate: ArrayLike) -> Measurement:
    """Mean over time of the absolute difference of two dominance curves.

    Args:
        real: [T] dominance of the real continuation's own winner set.
        surrogate: [T] dominance of the surrogate's own winner set.

    Returns:
        A number in [0, 1]; missing where T = 0.

    Raises:
        ValueError: the curves differ in length.
    """
    a, b = np.asarray(real, dtype=np.float64), np.asarray(surrogate, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"dominance curves of shapes {a.shape} and {b.shape}; cut both continuations to one length")
    if a.size == 0:
        return shorter_than(1)
    return Measurement(float(np.abs(a - b).mean()))


@register.measure(
    "time_to_dominance",
    unit="tokens",
    label="time to dominance",
    about="position from which the winners hold 90 % for good",
)
def time_to_dominance(curve: ArrayLike, level: float = 0.9) -> Measurement:
    """First time from which a dominance curve stays at or above a level until its end.

    Args:
        curve: [T] from `dominance`.
        level: the share to stay above.

    Returns:
        t from 1 to T, in generated tokens; missing where the curve ends below the level.
    """
    shares = np.asarray(curve, dtype=np.float64)
    if shares.size == 0:
        return shorter_than(1)
    below = np.flatnonzero(~(shares >= level))
    first = int(below[-1]) + 1 if below.size else 0
    if first == shares.size:
        return Measurement(None, f"dominance ends below {level:g}")
    return Measurement(float(first + 1))


@register.measure(
    "loser_exponent",
    unit="slope",
    label="exponent of losers",
    about="slope of log count on log time of a token that falls behind",
)
def loser_exponent(sequence: ArrayLike, prompt_length: int, token: int) -> Measurement:
    """Exponent rho of the growth of one token's count, N(t) ~ t^rho, over the last decade of t.

    Here t is the length of the context, prompt included, and N(t) the token's count in it. The slope of log N on log t
    is fitted by least squares on 64 log-spaced lengths (fewer where they round to the same one) from a tenth of the
    full length to all of it.

    Args:
        sequence: [N] prompt and continuation.
        prompt_length: tokens of the prompt: growth is looked for after it only.
        token: the token id.

    Returns:
        The exponent: 1 for a token that keeps its frequency, 0 for one that never comes back. Missing where the
        continuation covers less than a decade, or the token has not occurred when the decade begins.

    Raises:
        ValueError: prompt_length outside 0 to N.
    """
    tokens = as_tokens(sequence, "sequence")
    length = tokens.size
    if not 0 <= prompt_length <= length:
        raise ValueError(f"a prompt of {prompt_length} tokens in a sequence of {length}")
    first = -(-length // 10)
    if length < 10 or first < prompt_length:
        return Measurement(None, "less than one decade of time after the prompt")
    times = np.unique(np.rint(np.geomspace(first, length, _EXPONENT_POINTS)).astype(np.int64))
    counts = np.searchsorted(np.flatnonzero(tokens == token), times)
    if counts[0] == 0:
        return Measurement(None, f"token {token} does not occur among the first {first} tokens")
    log_time = np.log(times)
    log_time -= log_time.mean()
    return Measurement(float(log_time @ np.log(counts) / (log_time @ log_time)))


@register.measure("return_time", unit="tokens", label="return time", about="median gap between visits of a winner")
def return_time(continuation: ArrayLike, winners: ArrayLike) -> Measurement:
    """Median number of tokens between one visit of a winner and the next visit of the same winner.

    Args:
        continuation: [T] token ids.
        winners: the set of token ids; gaps of all of them are pooled.

    Returns:
        Tokens, at least 1; missing where no winner comes back.
    """
    tokens = as_tokens(continuation, "continuation")
    gaps = return_gaps(tokens)
    gaps = gaps[members(tokens, as_tokens(winners, "winners")) & (gaps > 0)]
    return Measurement(float(np.median(gaps))) if gaps.size else Measurement(None, "no winner occurs twice")


def loser_exponent_of_prompt(continuation: ArrayLike, prompt: ArrayLike) -> Measurement:
    """Median loser exponent over the prompt's tokens that are not in the winner set.

    Args:
        continuation: [T] token ids.
        prompt: [L] the tokens before it.

    Returns:
        The exponent; missing where no such token has one, with the first token's reason.
    """
    tokens, before = as_tokens(continuation, "continuation"), as_tokens(prompt, "prompt")
    whole, losers = np.concatenate([before, tokens]), np.setdiff1d(before, winner_set(tokens))
    found = [loser_exponent(whole, before.size, int(token)) for token in losers]
    values = [one.value for one in found if one.value is not None]
    if values:
        return Measurement(float(np.median(values)))
    return found[0] if found else Measurement(None, "every token of the prompt is a winner")


def own_winner_measures(continuation: ArrayLike, prompt: ArrayLike = ()) -> dict[str, Measurement]:
    """What one continuation says about its own winners.

    Args:
        continuation: [T] token ids.
        prompt: [L] the tokens before it.

    Returns:
        winner_size, dominance (its mean over t), time_to_dominance, return_time; all missing where T < 2.
    """
    tokens = as_tokens(continuation, "continuation")
    if tokens.size < SHORTEST:
        names = ("winner_size", "dominance", "time_to_dominance", "return_time")
        return dict.fromkeys(names, shorter_than(SHORTEST))
    winners = winner_set(tokens)
    curve = dominance(tokens, winners, prompt)
    return {
        "winner_size": Measurement(float(winners.size)),
        "dominance": Measurement(float(curve.mean())),
        "time_to_dominance": time_to_dominance(curve),
        "return_time": return_time(tokens, winners),
    }


def _ranked(continuation: ArrayLike) -> tuple[Tokens, NDArray[np.int64]]:
    """Token ids of the trailing window and their counts, the most frequent and then the most recent first."""
    window = trailing_window(continuation)
    ids, age, counts = np.unique(window[::-1], return_index=True, return_counts=True)
    order = np.lexsort((age, -counts))
    return ids[order], counts[order]
