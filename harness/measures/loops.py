"""The loop that a continuation ends in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.core.registry import register
from harness.measures.measurement import Measurement, shorter_than
from harness.measures.sequences import Tokens, as_tokens

SHORTEST_LOOP = 16
LOOP_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Loop:
    """A tail of the continuation that repeats itself until the end."""

    period: int
    """Tokens in one round."""
    onset: int
    """Index, counted from 0, of the first token of the tail."""
    share: float
    """Share of the continuation that lies in the tail."""


register.measure(
    "loop_share", unit="share", label="share in a loop", about="share of a continuation inside its final loop"
)
register.measure("loop_onset", unit="tokens", label="onset of the loop", about="where the final loop starts")
register.measure("loop_period", unit="tokens", label="period of the loop", about="length of the final loop")


def find_loop(continuation: ArrayLike) -> Loop | None:
    """The loop that a continuation ends in, if it does.

    The period is the smallest p for which a tail of at least max(3p, 16) tokens repeats with period p, that is, each
    of its tokens but the first p equals the one p before it. The onset is where the longest such tail begins.

    Args:
        continuation: [T] token ids.

    Returns:
        The loop; None where no period qualifies, as for every T < 16.
    """
    tokens = as_tokens(continuation, "continuation")
    length = tokens.size
    if length < SHORTEST_LOOP:
        return None
    # Only a period that brings the last token round again is a candidate: few, in text that does not loop.
    earlier = tokens[length - 1 - length // LOOP_ROUNDS : length - 1]
    candidates = (earlier.size - np.flatnonzero(earlier == tokens[-1]))[::-1]
    raw = tokens.tobytes()
    for period in candidates.tolist():
        tail = max(LOOP_ROUNDS * period, SHORTEST_LOOP)
        # Comparing bytes costs a tenth of comparing arrays of this size.
        if raw[8 * (length - tail + period) :] == raw[8 * (length - tail) : 8 * (length - period)]:
            breaks = np.flatnonzero(tokens[period:] != tokens[:-period])
            onset = int(breaks[-1]) + 1 if breaks.size else 0
            return Loop(period, onset, (length - onset) / length)
    return None


def looping(texts: ArrayLike, longest: int) -> NDArray[np.bool_]:
    """Whether a text ends in a loop after each of its tokens: `find_loop` of what was there then, with short periods.

    Args:
        texts: [..., T] token ids, one text a row.
        longest: periods to look for, 1 to so many.

    Returns:
        bool [..., T + 1]; place t is about the first t tokens: for some period p the last max(3p, 16) of them repeat.
    """
    tokens = np.asarray(texts, dtype=np.int64)
    place = np.arange(tokens.shape[-1])
    found = np.zeros((*tokens.shape[:-1], tokens.shape[-1] + 1), dtype=bool)
    for period in range(1, min(longest, tokens.shape[-1] - 1) + 1):
        other = np.broadcast_to(place, tokens.shape).copy()
        other[..., period:][tokens[..., period:] == tokens[..., :-period]] = -1
        run = place - np.maximum.accumulate(other, axis=-1)  # equal tokens in a row, up to this one
        found[..., 1:] |= run >= max(LOOP_ROUNDS * period, SHORTEST_LOOP) - period
    return found


def loop_measures(tokens: Tokens) -> dict[str, Measurement]:
    """loop_onset, loop_period and loop_share of one continuation [T]."""
    if tokens.size < SHORTEST_LOOP:
        return dict.fromkeys(("loop_onset", "loop_period", "loop_share"), shorter_than(SHORTEST_LOOP))
    loop = find_loop(tokens)
    if loop is None:
        none = Measurement(None, "no loop")
        return {"loop_onset": none, "loop_period": none, "loop_share": Measurement(0.0)}
    return {
        "loop_onset": Measurement(float(loop.onset)),
        "loop_period": Measurement(float(loop.period)),
        "loop_share": Measurement(loop.share),
    }
