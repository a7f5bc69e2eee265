"""Kernels of the simulation that look at a whole row: heavy tokens, the bound on light ones, draws by the sum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.types import FloatArray, IntArray

# Heavy tokens that a row can hold.
MOST_HEAVY = 32
# Cost of a draw, and of a token in a sum, in units of one heavy token.
_DRAW, _TERM = 7.0, 1.5
_LEVELS = 48
# Masses from this level on do not matter to the choice of a cut, which may be any.
_NEGLIGIBLE = 30
_UNDERFLOW = 1e-250
# Value of `heavy_number` for rows that are drawn by the sum.
_BY_SUM = -1


@summing_kernel
def _product(keys: FloatArray, queries: FloatArray, i: int, j: int) -> float:
    total = 0.0
    for d in range(keys.shape[1]):
        total += queries[i, d] * keys[j, d]
    return total


@kernel
def score(logits: FloatArray, keys: FloatArray, queries: FloatArray, i: int, j: int) -> float:
    """theta[i, j], looked up where logits are given and multiplied out where they are not."""
    if logits.shape[0] > 0:
        return float(logits[i, j])
    return float(_product(keys, queries, i, j))


@kernel
def look_at_row(
    present: IntArray,
    counts: FloatArray,
    table: FloatArray | None,
    logits: FloatArray,
    keys: FloatArray,
    queries: FloatArray,
    query: int,
    size: int,
    scores: FloatArray,
    base: FloatArray,
    bound: FloatArray,
    top: FloatArray,
    heavy_number: IntArray,
    heavy: NDArray[np.int32],
    heavy_mass: FloatArray,
) -> float:
    """Choose the heavy tokens of a row by the present counts, and the bound on the mass of the light ones.

    Masses are those of the table, or exp(score - best) of the row. Returns how many draws a step takes with the bound
    of before.
    """
    number = present.shape[0]
    best = -np.inf
    for k in range(number):
        scores[k] = score(logits, keys, queries, query, present[k])
        best = max(best, scores[k])
    shift = best if table is None else 0.0
    if np.exp(best - shift) < _UNDERFLOW:
        heavy_number[query] = _BY_SUM
        return np.inf
    # Level l holds the logits that lie l to l + 1 times log 2 below the best; the last one everything below.
    mass, highest, members = np.zeros(_LEVELS), np.full(_LEVELS, -np.inf), np.zeros(_LEVELS)
    for k in range(number):
        level = min(_LEVELS - 1, int((best - scores[k]) * 1.4426950408889634))
        members[level] += 1
        highest[level] = max(highest[level], scores[k])
        if level < _NEGLIGIBLE and counts[present[k]] > 0:
            value = np.exp(scores[k] - shift) if table is None else table[query, present[k]]
            mass[level] += counts[present[k]] * value
    all_mass = max(mass.sum(), 1e-300)
    before = size * (np.exp(base[query] - shift) if table is None else bound[query]) / all_mass
    # The bound behind a cut is the best of all levels below it.
    for level in range(_LEVELS - 2, -1, -1):
        highest[level] = max(highest[level], highest[level + 1])
    cheapest, cut, inside, held = np.inf, 0, 0.0, 0.0
    for level in range(_LEVELS):
        if inside > MOST_HEAVY:
            break
        draws = (held + size * np.exp(highest[level] - shift)) / all_mass
        cost = draws * _DRAW + inside
        if cost < cheapest:
            cheapest, cut = cost, level
        inside += members[level]
        held += mass[level]
    if not cheapest < _TERM * number + _DRAW:
        heavy_number[query] = _BY_SUM
        return float(before)
    light, lightest, chosen = 0.0, np.inf, 0
    for k in range(number):
        value = np.exp(scores[k] - shift) if table is None else table[query, present[k]]
        if scores[k] > highest[cut]:
            # The likeliest first: a draw looks them through from the front.
            at, share = chosen, counts[present[k]] * value
            while at > 0 and share > counts[heavy[query, at - 1]] * heavy_mass[query, at - 1]:
                heavy[query, at], heavy_mass[query, at] = heavy[query, at - 1], heavy_mass[query, at - 1]
                at -= 1
            heavy[query, at], heavy_mass[query, at] = present[k], value
            chosen += 1
            lightest = min(lightest, scores[k] if table is None else value)
        else:
            light = max(light, value)
    for k in range(chosen, -(-chosen // 4) * 4):
        heavy[query, k] = heavy[query, 0]
        heavy_mass[query, k] = 0.0
    heavy_number[query] = -(-chosen // 4) * 4
    bound[query] = light
    base[query] = highest[cut]
    # A threshold between the two kinds, so that a score computed once more may differ in its last bit.
    below = highest[cut] if table is None else light
    top[query] = np.inf if chosen == 0 else 0.5 * (below + lightest) if below > -np.inf else -np.inf
    return float(before)


@kernel
def draw_by_sum(
    present: IntArray,
    counts: FloatArray,
    logits: FloatArray,
    keys: FloatArray,
    queries: FloatArray,
    query: int,
    scores: FloatArray,
    uniform: float,
) -> int:
    """One token by inversion of a uniform number over the tokens present, relative to the best of them."""
    best = -np.inf
    for k in range(present.shape[0]):
        if counts[present[k]] > 0:
            scores[k] = score(logits, keys, queries, query, present[k])
            best = max(best, scores[k])
    total = 0.0
    for k in range(present.shape[0]):
        if counts[present[k]] > 0:
            scores[k] = counts[present[k]] * np.exp(scores[k] - best)
            total += scores[k]
    left = uniform * total
    last = -1
    for k in range(present.shape[0]):
        if counts[present[k]] > 0 and scores[k] > 0:
            last = present[k]
            left -= scores[k]
            if left < 0:
                break
    return int(last)
