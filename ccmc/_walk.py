"""Kernels of the simulation: one reinforced walk after another.

The next token after query i is j with chance proportional to m_j exp(theta[i, j]). A token at a uniformly drawn
position of the context is a draw from the counts m, so it may be accepted with chance exp(theta[i, j]) over a bound.
Where a row is peaked that refuses too often, so its few *heavy* tokens are taken out: with h their exact mass
sum m_j exp(theta[i, j]), n the length of the context and b the largest exp(theta[i, j]) among the light tokens, a
draw is heavy with chance h / (h + n b), and otherwise a position is proposed, and refused if its token is heavy or by
chance. Refused draws start anew, which leaves the law exact whatever the bound and whichever tokens are heavy.

So both may be chosen by cost alone. A row begins with a bound known in advance (its largest entry, or the product of
norms of keys and queries) and no heavy token; when the draws refused there have cost as much as looking at the row,
its tokens are grouped by powers of two and the cheapest cut is taken, from the counts of that moment. Where even that
is dearer than summing over the tokens present, or rows underflow, the token is drawn by the sum.

Each path has its own random stream (xoshiro256++ seeded by SplitMix64 from the seed and the path's number), so a path
does not depend on the threads or on the paths beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._numba import kernel, summing_kernel
from ccmc._types import FloatArray, IntArray

U64 = np.uint64
_GOLDEN = U64(0x9E3779B97F4A7C15)
_MIX_1 = U64(0xBF58476D1CE4E5B9)
_MIX_2 = U64(0x94D049BB133111EB)
_UNIT = 1.0 / 9007199254740992.0

# Heavy tokens that a row can hold.
MOST_HEAVY = 32
# Proposals looked up side by side, so that their waits for memory overlap.
_ABREAST = 3
# Cost of a refused draw, and of a token in a sum, in units of one heavy token.
_DRAW, _TERM = 6.0, 1.5
_LEVELS = 48
# Masses from this level on do not matter to the choice of a cut, which may be any.
_NEGLIGIBLE = 30
_UNDERFLOW = 1e-250
# Value of `heavy_number` for rows that are drawn by the sum.
_BY_SUM = -1


@kernel
def _mix(x: np.uint64) -> np.uint64:
    """SplitMix64's scrambling of a 64-bit word."""
    x = (x ^ (x >> U64(30))) * _MIX_1
    x = (x ^ (x >> U64(27))) * _MIX_2
    return x ^ (x >> U64(31))


@kernel
def _seed_stream(key: NDArray[np.uint64], path: int, state: NDArray[np.uint64]) -> None:
    """State [4] of a path's stream from the seed's key [4]."""
    x = U64(path)
    for k in range(4):
        x = _mix((x + _GOLDEN) ^ key[k])
    for k in range(4):
        x += _GOLDEN
        state[k] = _mix(x)


@kernel
def _uniform(state: NDArray[np.uint64]) -> float:
    """Next number of the stream in [0, 1), with 53 bits."""
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    total = s0 + s3
    word = ((total << U64(23)) | (total >> U64(41))) + s0
    moved = s1 << U64(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= moved
    s3 = (s3 << U64(45)) | (s3 >> U64(19))
    state[0], state[1], state[2], state[3] = s0, s1, s2, s3
    return float(word >> U64(11)) * _UNIT


@summing_kernel
def _product(keys: FloatArray, queries: FloatArray, i: int, j: int) -> float:
    total = 0.0
    for d in range(keys.shape[1]):
        total += queries[i, d] * keys[j, d]
    return total


@kernel
def _score(logits: FloatArray, keys: FloatArray, queries: FloatArray, i: int, j: int) -> float:
    """theta[i, j], looked up where logits are given and multiplied out where they are not."""
    if logits.shape[0] > 0:
        return float(logits[i, j])
    return float(_product(keys, queries, i, j))


@kernel
def _mass(
    table: FloatArray, logits: FloatArray, keys: FloatArray, queries: FloatArray, shift: float, i: int, j: int
) -> float:
    """exp(theta[i, j]), from the table or, times exp(-shift), from the score."""
    if table.shape[0] > 0:
        return float(table[i, j])
    return float(np.exp(_score(logits, keys, queries, i, j) - shift))


@kernel
def walk(
    paths: IntArray,
    tokens: IntArray,
    offsets: IntArray,
    window: int,
    key: NDArray[np.uint64],
    table: FloatArray,
    logits: FloatArray,
    keys: FloatArray,
    queries: FloatArray,
    highest: FloatArray,
    out: IntArray,
) -> None:
    """Continue the prompts `paths` by out.shape[1] tokens each, into the rows of `out` of the same numbers.

    Prompt p is tokens[offsets[p]:offsets[p + 1]]. Either logits [K, K] or keys and queries [K, d] are given, the
    others are empty; table [K, K] holds exp(logits), or is empty where that is not worth it. highest [K] bounds each
    row's logits.
    """
    steps, vocab_size = out.shape[1], highest.shape[0]
    counts = np.zeros(vocab_size)
    bound, shift = np.empty(vocab_size), np.empty(vocab_size)
    refused, limit = np.zeros(vocab_size), np.zeros(vocab_size)
    heavy_number = np.zeros(vocab_size, np.int64)
    heavy = np.empty((vocab_size, MOST_HEAVY), np.int32)
    heavy_mass = np.empty((vocab_size, MOST_HEAVY))
    state = np.empty(4, np.uint64)
    proposed, mass = np.empty(_ABREAST, np.int64), np.empty(_ABREAST)
    shares = np.empty(MOST_HEAVY)
    for p in paths:
        length = offsets[p + 1] - offsets[p]
        history = np.empty(length + steps, np.int32)
        history[:length] = tokens[offsets[p] : offsets[p + 1]]
        present = np.empty(vocab_size if length > vocab_size else length, np.int64)
        number = _distinct(history[:length], counts, present)
        scores = np.empty(number)
        for k in range(number):
            token = present[k]
            # A row is looked at when the draws it refused have cost as much.
            limit[token] = 0.0
            refused[token] = 0.0
            heavy_number[token] = 0
            shift[token] = highest[token]
            bound[token] = np.exp(highest[token]) if table.shape[0] > 0 else 1.0
        first_limit = number if table.shape[0] > 0 else 0.4 * number
        for t in range(max(0, length - window), length):
            counts[history[t]] += 1.0
        _seed_stream(key, p, state)
        for t in range(length, length + steps):
            query = int(history[t - 1])
            size = min(t, window)
            token = -1
            while token < 0:
                h = heavy_number[query]
                if h < 0:
                    token = _draw_by_sum(present, number, counts, logits, keys, queries, query, scores, state)
                    break
                light = size * bound[query]
                total = light
                if h > 0:
                    for k in range(h):
                        shares[k] = counts[heavy[query, k]] * heavy_mass[query, k]
                        total += shares[k]
                    left = _uniform(state) * total - light
                    if left >= 0:
                        for k in range(h):
                            if shares[k] > 0:
                                token = int(heavy[query, k])
                                left -= shares[k]
                                if left < 0:
                                    break
                        continue
                    # The first light proposal decides; after a refusal the draw starts anew.
                    at = t - 1 - int(_uniform(state) * size)
                    other = int(history[at])
                    value = _mass(table, logits, keys, queries, shift[query], query, other)
                    if value <= bound[query] and _uniform(state) * bound[query] < value:
                        token = other
                    else:
                        refused[query] += 1.0
                else:
                    for k in range(_ABREAST):
                        proposed[k] = history[t - 1 - int(_uniform(state) * size)]
                    for k in range(_ABREAST):
                        mass[k] = _mass(table, logits, keys, queries, shift[query], query, int(proposed[k]))
                    for k in range(_ABREAST - 1, -1, -1):
                        token = int(proposed[k]) if _uniform(state) * bound[query] < mass[k] else token
                    refused[query] += 0.0 if token >= 0 else 1.0 * _ABREAST
                if token < 0 and refused[query] > max(limit[query], first_limit):
                    if limit[query] == 0 and table.shape[0] == 0:
                        # Bounds from norms are poor here; do not try them for as long on the next row.
                        first_limit = max(8.0, 0.5 * first_limit)
                    bound[query] = _look_at_row(
                        present, number, counts, table, logits, keys, queries, query, size, scores, shift,
                        heavy_number, heavy, heavy_mass,
                    )  # fmt: skip
                    refused[query] = 0.0
                    limit[query] = 2.0 * max(limit[query], number)
            history[t] = token
            counts[token] += 1.0
            if t >= window:
                counts[history[t - window]] -= 1.0
        out[p] = history[length:]
        for k in range(number):
            counts[present[k]] = 0.0


@kernel
def _distinct(prompt: NDArray[np.int32], counts: FloatArray, present: IntArray) -> int:
    """Write the different tokens of a prompt to `present`, ascending; returns how many. counts are zeros, and stay."""
    number = 0
    for token in prompt:
        if counts[token] == 0.0:
            counts[token] = 1.0
            present[number] = token
            number += 1
    present[:number].sort()
    for k in range(number):
        counts[present[k]] = 0.0
    return number


@kernel
def _look_at_row(
    present: IntArray,
    number: int,
    counts: FloatArray,
    table: FloatArray,
    logits: FloatArray,
    keys: FloatArray,
    queries: FloatArray,
    query: int,
    size: int,
    scores: FloatArray,
    shift: FloatArray,
    heavy_number: IntArray,
    heavy: NDArray[np.int32],
    heavy_mass: FloatArray,
) -> float:
    """Choose the heavy tokens of a row by the present counts; returns the bound on the mass of the light ones."""
    best = -np.inf
    for k in range(number):
        scores[k] = _score(logits, keys, queries, query, present[k])
        best = max(best, scores[k])
    if table.shape[0] == 0:
        shift[query] = best
    base = shift[query] if table.shape[0] == 0 else 0.0
    if np.exp(best - base) < _UNDERFLOW:
        heavy_number[query] = _BY_SUM
        return 0.0
    # Level l holds the logits that lie l to l + 1 times log 2 below the best; the last one everything below.
    mass, highest, members = np.zeros(_LEVELS), np.full(_LEVELS, -np.inf), np.zeros(_LEVELS)
    for k in range(number):
        level = min(_LEVELS - 1, int((best - scores[k]) * 1.4426950408889634))
        members[level] += 1
        highest[level] = max(highest[level], scores[k])
        if level < _NEGLIGIBLE and counts[present[k]] > 0:
            mass[level] += counts[present[k]] * np.exp(scores[k] - base)
    all_mass = mass.sum()
    # The bound behind a cut is the best of all levels below it.
    for level in range(_LEVELS - 2, -1, -1):
        highest[level] = max(highest[level], highest[level + 1])
    cheapest, cut, inside, held = np.inf, 0, 0.0, 0.0
    for level in range(_LEVELS):
        if inside > MOST_HEAVY:
            break
        draws = (held + size * np.exp(highest[level] - base)) / max(all_mass, 1e-300)
        cost = draws * (_DRAW + inside)
        if cost < cheapest:
            cheapest, cut = cost, level
        inside += members[level]
        held += mass[level]
    if not cheapest < _TERM * number + _DRAW:
        heavy_number[query] = _BY_SUM
        return 0.0
    # Masses are computed as the draws compute them, so that light is whatever does not exceed the bound, to the bit.
    light = 0.0
    for k in range(number):
        if scores[k] == highest[cut]:
            light = max(light, _mass(table, logits, keys, queries, base, query, present[k]))
    chosen = 0
    if cut > 0:
        for k in range(number):
            if scores[k] > highest[cut]:
                value = _mass(table, logits, keys, queries, base, query, present[k])
                if value > light:
                    heavy[query, chosen] = present[k]
                    heavy_mass[query, chosen] = value
                    chosen += 1
    heavy_number[query] = chosen
    return light


@kernel
def _draw_by_sum(
    present: IntArray,
    number: int,
    counts: FloatArray,
    logits: FloatArray,
    keys: FloatArray,
    queries: FloatArray,
    query: int,
    scores: FloatArray,
    state: NDArray[np.uint64],
) -> int:
    """One token by inversion over the tokens present, relative to the best of them."""
    best = -np.inf
    for k in range(number):
        if counts[present[k]] > 0:
            scores[k] = _score(logits, keys, queries, query, present[k])
            best = max(best, scores[k])
    total = 0.0
    for k in range(number):
        if counts[present[k]] > 0:
            scores[k] = counts[present[k]] * np.exp(scores[k] - best)
            total += scores[k]
    left = _uniform(state) * total
    last = -1
    for k in range(number):
        if counts[present[k]] > 0 and scores[k] > 0:
            last = present[k]
            left -= scores[k]
            if left < 0:
                break
    return int(last)
