"""Repetition in one continuation: repeated n-grams, repeats within a window, entropy; loops are in `loops`.

A continuation is what was generated after the prompt, T tokens long; the prompt is left out.
A measure that a continuation is too short for is missing with a reason, never 0.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.core.registry import register
from harness.measures.loops import loop_measures
from harness.measures.measurement import Measurement, shorter_than
from harness.measures.sequences import Tokens, as_tokens, ngram_counts, occurrences, return_gaps, trailing_length

Counts = NDArray[np.int64]


register.measure(
    "seq_rep_1",
    unit="share",
    label="repeated tokens",
    about="share of repeated tokens in a continuation",
    source="Welleck et al., 2020",
)
register.measure(
    "seq_rep_2",
    unit="share",
    label="repeated 2-grams",
    about="share of repeated 2-grams in a continuation",
    source="Welleck et al., 2020",
)
register.measure(
    "seq_rep_3",
    unit="share",
    label="repeated 3-grams",
    about="share of repeated 3-grams in a continuation",
    source="Welleck et al., 2020",
)
register.measure(
    "seq_rep_4",
    unit="share",
    label="repeated 4-grams",
    about="share of repeated 4-grams in a continuation",
    source="Welleck et al., 2020",
)


def seq_rep(continuation: ArrayLike, n: int) -> Measurement:
    """Share of n-grams that repeat an earlier one: 1 - distinct n-grams / n-grams.

    Args:
        continuation: [T] token ids.
        n: size of the n-grams.

    Returns:
        A share in [0, 1); missing where T < n.

    Source:
        Welleck et al., "Neural Text Generation with Unlikelihood Training", 2020 (seq-rep-n).
    """
    return _repeated(distinct(continuation, n))


register.measure(
    "distinct_2",
    unit="share",
    label="distinct 2-grams",
    about="share of distinct 2-grams in a continuation",
    source="Li et al., 2016",
)


def distinct(continuation: ArrayLike, n: int) -> Measurement:
    """Share of n-grams that are distinct: 1 - seq_rep.

    Args:
        continuation: [T] token ids.
        n: size of the n-grams.

    Returns:
        A share in (0, 1]; missing where T < n.

    Source:
        Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", 2016 (distinct-n),
        here per continuation.
    """
    return _distinct_share(ngram_counts(continuation, n), n)


@register.measure(
    "diversity", unit="share", about="product over n = 2..4 of the share of distinct n-grams", source="Su et al., 2022"
)
def diversity(continuation: ArrayLike) -> Measurement:
    """Product of the distinct shares of 2-, 3- and 4-grams.

    Args:
        continuation: [T] token ids.

    Returns:
        A number in (0, 1]; missing where T < 4.

    Source:
        Su et al., "A Contrastive Framework for Neural Text Generation", 2022.
    """
    return _diversity({n: distinct(continuation, n) for n in (2, 3, 4)})


register.measure(
    "rep_16",
    unit="share",
    label="repeats within 16",
    about="share of positions whose token occurs among the 16 before",
    source="Welleck et al., 2020",
)
register.measure(
    "rep_32",
    unit="share",
    label="repeats within 32",
    about="share of positions whose token occurs among the 32 before",
    source="Welleck et al., 2020",
)
register.measure(
    "rep_128",
    unit="share",
    label="repeats within 128",
    about="share of positions whose token occurs among the 128 before",
    source="Welleck et al., 2020",
)


def rep(continuation: ArrayLike, window: int) -> Measurement:
    """Share of all T positions whose token occurs among the previous `window` tokens of the continuation.

    The first position has nothing before it and counts as no repeat.

    Args:
        continuation: [T] token ids.
        window: how many tokens to look back, at least 1.

    Returns:
        A share in [0, 1); missing where T < 2.

    Raises:
        ValueError: window below 1.

    Source:
        Welleck et al., 2020 (rep/l), on the text itself.
    """
    _check_window(window)
    return _rep(return_gaps(continuation), window)


@register.measure(
    "argmax_repeat_rate",
    unit="share",
    label="repeats of the likeliest token",
    about="share of positions whose likeliest token occurs among the 32 before",
    source="Welleck et al., 2020",
)
def argmax_repeat_rate(
    argmaxes: ArrayLike, continuation: ArrayLike, prompt: ArrayLike = (), window: int = 32
) -> Measurement:
    """Share of positions whose model argmax occurs among the `window` tokens just before that position.

    The history of position t is prompt + continuation[:t], that is, the text the model has read when it gives
    argmaxes[t]; only its last `window` tokens count. Without a prompt the history is continuation[:t] alone: then a
    greedy continuation, whose argmaxes are its own tokens, scores exactly its `rep`.

    Args:
        argmaxes: [T] the model's most probable token at each position of the continuation.
        continuation: [T] the tokens that were written there.
        prompt: [L] the tokens before the continuation.
        window: how many tokens to look back, at least 1.

    Returns:
        A share in [0, 1]; missing where no position has a history.

    Raises:
        ValueError: argmaxes and continuation differ in length, or window below 1.

    Source:
        Welleck et al., 2020 (rep/l: repeats among top-1 predictions).
    """
    _check_window(window)
    predicted = as_tokens(argmaxes, "argmaxes")
    written = as_tokens(continuation, "continuation")
    before = as_tokens(prompt, "prompt")
    if predicted.size != written.size:
        raise ValueError(f"{predicted.size} argmaxes for a continuation of {written.size} tokens")
    if written.size == 0:
        return shorter_than(1)
    if before.size + written.size < 2:
        return shorter_than(2)
    stop = before.size + np.arange(written.size)
    start = np.maximum(stop - window, 0)
    repeats = occurrences(np.concatenate([before, written]), predicted, start, stop) > 0
    return Measurement(np.count_nonzero(repeats) / written.size)


@register.measure(
    "window_entropy", unit="nats", label="entropy of the window", about="entropy of the trailing window, nats"
)
def window_entropy(continuation: ArrayLike, window: int | None = None) -> Measurement:
    """Entropy of the token frequencies among the last `window` tokens.

    Args:
        continuation: [T] token ids.
        window: how many tokens; the trailing window, min(128, floor(T / 2)), where none is given.

    Returns:
        Nats; missing where T is below the window, or below 2 where none is given.

    Raises:
        ValueError: window below 1.
    """
    tokens = as_tokens(continuation, "continuation")
    width = _width(tokens, window)
    if width == 0 or tokens.size < width:
        return shorter_than(width or 2)
    shares = ngram_counts(tokens[-width:], 1) / width
    return Measurement(max(0.0, float(-shares @ np.log(shares))))


def window_entropy_curve(continuation: ArrayLike, window: int | None = None) -> NDArray[np.float64]:
    """Entropy of the last `window` tokens after each token of a continuation.

    Args:
        continuation: [T] token ids.
        window: how many tokens; the trailing window, min(128, floor(T / 2)), where none is given.

    Returns:
        float64 [T], nats: entry t - 1 is the entropy of the last min(window, t) of the first t tokens. The last entry
        is `window_entropy`.

    Raises:
        ValueError: window below 1.
    """
    tokens = as_tokens(continuation, "continuation")
    width = max(_width(tokens, window), 1)
    now = np.arange(tokens.size)
    start = np.maximum(now - width + 1, 0)
    # sum c log c changes only at the token that enters and at the one that leaves, so a running sum carries it.
    arriving = occurrences(tokens, tokens, start, now)
    change = _c_log_c(arriving + 1) - _c_log_c(arriving)
    leaving = occurrences(tokens, tokens[:-width], now[:-width], now[width:])
    change[width:] += _c_log_c(leaving - 1) - _c_log_c(leaving)
    held = now - start + 1
    return np.maximum(np.log(held) - np.cumsum(change) / held, 0.0)


@register.measure(
    "effective_vocabulary",
    unit="tokens",
    label="effective vocabulary",
    about="exp of the entropy of the trailing window",
)
def effective_vocabulary(continuation: ArrayLike, window: int | None = None) -> Measurement:
    """How many equally frequent tokens would have the entropy of the last `window` tokens: exp(window_entropy).

    Args:
        continuation: [T] token ids.
        window: as in `window_entropy`.

    Returns:
        A number of tokens, at least 1; missing where `window_entropy` is.
    """
    return _exponential(window_entropy(continuation, window))


@register.measure("zipf_slope", unit="slope", label="Zipf slope", about="slope of log frequency on log rank")
def zipf_slope(continuation: ArrayLike) -> Measurement:
    """Slope of log frequency on log rank, by least squares over all types.

    Args:
        continuation: [T] token ids.

    Returns:
        The slope, 0 or negative; missing with fewer than 5 types.
    """
    return _zipf_slope(ngram_counts(continuation, 1))


@register.measure(
    "compression_ratio",
    unit="ratio",
    label="compression",
    about="size of a continuation over its compressed size",
)
def compression_ratio(continuation: ArrayLike) -> Measurement:
    """Bytes of the continuation over its bytes when compressed: higher is more repetitive.

    Ids are written as 4-byte little-endian numbers and compressed by zlib at level 9. The ratio grows with T, and an id
    below 256 brings three zero bytes: compare continuations of one length and one vocabulary.

    Args:
        continuation: [T] token ids.

    Returns:
        The ratio, positive; missing where T = 0.
    """
    tokens = as_tokens(continuation, "continuation")
    if tokens.size == 0:
        return shorter_than(1)
    raw = tokens.astype("<u4").tobytes()
    return Measurement(len(raw) / len(zlib.compress(raw, 9)))


register.measure("length", unit="tokens", headline_of="continuations", about="tokens in a continuation")


def repetition_measures(continuation: ArrayLike) -> dict[str, Measurement]:
    """All repetition measures of one continuation, by the names used in tables.

    Without a loop, loop_onset and loop_period are missing and loop_share is 0: none of the tokens stands in a loop.

    Args:
        continuation: [T] token ids, the prompt left out.

    Returns:
        seq_rep_1 to seq_rep_4, distinct_2, diversity, rep_16, rep_32, rep_128, window_entropy, effective_vocabulary,
        zipf_slope, compression_ratio, loop_onset, loop_period, loop_share, length.
    """
    tokens = as_tokens(continuation, "continuation")
    grams = {n: ngram_counts(tokens, n) for n in (1, 2, 3, 4)}
    shares = {n: _distinct_share(counts, n) for n, counts in grams.items()}
    gaps = return_gaps(tokens)
    entropy = window_entropy(tokens)
    measures = {f"seq_rep_{n}": _repeated(share) for n, share in shares.items()}
    measures["distinct_2"] = shares[2]
    measures["diversity"] = _diversity(shares)
    measures |= {f"rep_{window}": _rep(gaps, window) for window in (16, 32, 128)}
    measures["window_entropy"] = entropy
    measures["effective_vocabulary"] = _exponential(entropy)
    measures["zipf_slope"] = _zipf_slope(grams[1])
    measures["compression_ratio"] = compression_ratio(tokens)
    measures |= loop_measures(tokens)
    measures["length"] = Measurement(float(tokens.size))
    return measures


def _distinct_share(counts: Counts, n: int) -> Measurement:
    if counts.size == 0:
        return shorter_than(n)
    return Measurement(counts.size / int(counts.sum()))


def _repeated(share: Measurement) -> Measurement:
    return share if share.value is None else Measurement(1.0 - share.value)


def _diversity(shares: dict[int, Measurement]) -> Measurement:
    product = 1.0
    for n in (4, 3, 2):
        share = shares[n].value
        if share is None:
            return shorter_than(4)
        product *= share
    return Measurement(product)


def _rep(gaps: NDArray[np.int64], window: int) -> Measurement:
    if gaps.size < 2:
        return shorter_than(2)
    return Measurement(np.count_nonzero((gaps > 0) & (gaps <= window)) / gaps.size)


def _exponential(entropy: Measurement) -> Measurement:
    return entropy if entropy.value is None else Measurement(math.exp(entropy.value))


def _zipf_slope(counts: Counts) -> Measurement:
    if counts.size < 5:
        return Measurement(None, "fewer than 5 types of token")
    log_count = np.log(np.sort(counts)[::-1])
    log_rank = np.log(np.arange(1, counts.size + 1))
    log_rank -= log_rank.mean()
    return Measurement(float(log_rank @ log_count / (log_rank @ log_rank)))


def _check_window(window: int) -> None:
    if window < 1:
        raise ValueError(f"a window has at least one token, got {window}")


def _width(tokens: Tokens, window: int | None) -> int:
    if window is None:
        return trailing_length(tokens.size)
    _check_window(window)
    return window


def _c_log_c(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(counts * np.log(np.maximum(counts, 1)), dtype=np.float64)
