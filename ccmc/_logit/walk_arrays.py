"""What the kernels of a walk work on: a base transition, a law, and a growing context."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ccmc._data.types import FloatArray, IntArray

Int32Array = NDArray[np.int32]


class BaseArrays(NamedTuple):
    """A base transition; see `ccmc.base.BaseTransition`, and `Factors` for the last five (of width 0: no logits)."""

    row: IntArray
    tokens: Int32Array
    log_p: FloatArray
    log_scale: FloatArray
    log_unigram: FloatArray
    frequent: IntArray
    hidden: NDArray[np.float32]
    keys: NDArray[np.float32]
    bias: FloatArray
    log_norm: FloatArray
    cap: float


class LawArrays(NamedTuple):
    """What is walked, weights already divided by the temperature.

    Attributes:
        closed, greedy: 1 or 0; offset: 0 none, 1 counts, 2 followed-by-1.
        heat: by which offsets are multiplied.
        base, present, log_count, unigram, similarity: weights; inside: that of log P0 of the types of the context.
        recent: [K] weight of the fading count of each level.
        levels: [K] orders; with the offset 2, the first is 1.
        kinds, slots, w: [M] of the statistics that only followers of the last token have.
        aged: [most tokens + 1] part of the utility that depends on the number of tokens since the last occurrence.
        sums: [R + 1] of P0^base.
        cumulated: [R, top] running sums of P0^base over the kept tokens of rows.
        tail: [V] running sums of unigram^base over tokens in order of frequency.
    """

    closed: int
    greedy: int
    offset: int
    heat: float
    base: float
    inside: float
    present: float
    log_count: float
    unigram: float
    similarity: float
    recent: FloatArray
    levels: IntArray
    kinds: IntArray
    slots: IntArray
    w: FloatArray
    aged: FloatArray
    sums: FloatArray
    cumulated: FloatArray
    tail: FloatArray


class State(NamedTuple):
    """A growing context of T tokens at most, of types numbered by first occurrence; `counts` has the same [T] by place.

    Attributes:
        place: [V] number of each type, -1 outside the context; types: [T] the types; local: [T + 1] the text.
        m, fixed: [T] count of each type, and the part of its utility that only changes when it occurs.
        faded: [K, T] fading counts.
        last, seen: [T] where a type occurred last; seen is -1 before.
        previous, length: [T] of positions, see `follow`.
        log_base, within, known, keys: [T, T] log P0 after types that have been last, sums of P0^base over the types of
            which it is known, how many they are, and [T, d] keys of the types.
    """

    place: IntArray
    types: IntArray
    local: IntArray
    m: FloatArray
    fixed: FloatArray
    faded: FloatArray
    last: IntArray
    seen: IntArray
    previous: IntArray
    length: IntArray
    log_base: FloatArray
    within: FloatArray
    known: IntArray
    keys: NDArray[np.float32]


class After(NamedTuple):
    """What followed the end of the context earlier; see `follow`."""

    followed: FloatArray
    total: FloatArray
    longest: IntArray
    latest: IntArray
    touched: IntArray
