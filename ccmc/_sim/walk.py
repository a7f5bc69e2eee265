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

A step waits for little: two draws are made at once, the upper 53 bits of a random word choose a position and its
lower 11 decide nearly always whether the token there is accepted (another word decides where they do not), and
products are compared as logarithms, without an exponential.

Each path has its own random stream (`ccmc._sim.random`), so a path does not depend on the threads or on the paths
beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray
from ccmc._sim.random import U64, next_word, seed_stream, unit
from ccmc._sim.walk_rows import MOST_HEAVY, draw_by_sum, look_at_row, score

# A word's upper 53 bits choose a position, and its lower 11 are a first, coarse number to compare with.
_COARSE = 2048.0
_SMALLEST = 1e-300
# Numbers kept for each row: bound on masses, bound on scores, threshold to heavy ones, and three of bookkeeping.
_ROW_NUMBERS = 8
# Draws per step from which a bound is poor.
_POOR = 50.0


@kernel
def _at(history: NDArray[np.int32], place: int) -> int:
    """Entry of a path; unsigned, so that no check for places that count from the end is compiled."""
    return int(history[U64(place)])


@kernel
def _over(
    table: FloatArray | None,
    logits: FloatArray,
    keys: FloatArray,
    queries: FloatArray,
    levels: FloatArray,
    base: float,
    coarse: float,
    top: float,
    i: int,
    j: int,
    word: np.uint64,
) -> float:
    """What accepts j after query i: surely at 1 or more, surely not at 0 or less, and with this chance in between.

    `word` holds an integer below 2,048 to compare with; levels [2049] are the logarithms of their shares. From the
    table, `coarse` is 2,048 over the bound on masses; otherwise `base` is the bound on scores. Above `top` j is heavy.
    """
    rest = word & U64(2047)
    if table is None:
        found = score(logits, keys, queries, i, j)
        lead = found - base if found <= top else -np.inf
        # No exponential, and no branch: 0.5 means a chance in between, which is rare.
        return float((2.0 if lead >= levels[rest + U64(1)] else 0.5) if lead >= levels[rest] else -1.0)
    mass = table[U64(i), U64(j)]
    return coarse * mass - float(np.int64(rest)) if mass <= top else -1.0


@kernel
def _exactly(over: float, lead: float, word: np.uint64) -> float:
    """What `_over` says where it cannot decide, from the logarithm of mass over bound."""
    return float(np.exp(lead) * _COARSE - float(np.int64(word & U64(2047))) if 0 < over < 1 else over)


@kernel
def walk(
    paths: IntArray,
    tokens: IntArray,
    offsets: IntArray,
    window: int,
    key: NDArray[np.uint64],
    called: NDArray[np.uint64],
    table: FloatArray | None,
    logits: FloatArray,
    keys: FloatArray,
    queries: FloatArray,
    highest: FloatArray,
    out: IntArray,
) -> None:
    """Continue the prompts `paths` by out.shape[1] tokens each, into the rows of `out` of the same numbers.

    Prompt p is tokens[offsets[p]:offsets[p + 1]], called [n, 3] are the names of prompts and key [4] is that of the
    seed, for `seed_stream`. Either logits [K, K] or keys and queries [K, d] are given, the
    others are empty; table [K, K] holds exp(logits), or is None where that is not worth it: the two cases are compiled
    apart. highest [K] bounds each row's logits.
    """
    steps, vocab_size = out.shape[1], highest.shape[0]
    counts, by_row = np.zeros(vocab_size), np.empty((vocab_size, _ROW_NUMBERS))
    heavy_number = np.empty(vocab_size, np.int64)
    heavy, heavy_mass = np.empty((vocab_size, MOST_HEAVY), np.int32), np.empty((vocab_size, MOST_HEAVY))
    state = np.empty(4, np.uint64)
    levels = np.empty(2049)
    levels[0] = -np.inf
    for a in range(1, 2049):
        levels[a] = np.log(a / _COARSE)
    place = np.empty(vocab_size, np.int32)
    for p in paths:
        length = offsets[p + 1] - offsets[p]
        history = np.empty(length + steps, np.int32)
        history[:length] = tokens[offsets[p] : offsets[p + 1]]
        names = _distinct(history[:length], counts)
        seed_stream(key, called[p], state)
        if keys.shape[0] > 0:
            # Products read a key per proposal, so a path's own few tokens are put side by side and numbered anew.
            for k in range(names.shape[0]):
                place[names[k]] = k
            for t in range(length):
                history[t] = place[history[t]]
            _walk_on(
                history, length, window, np.arange(names.shape[0]), state, levels, table, logits, keys[names],
                queries[names], highest[names], counts, by_row, heavy_number, heavy, heavy_mass,
            )  # fmt: skip
            for t in range(steps):
                out[p, t] = names[history[length + t]]
        else:
            _walk_on(
                history, length, window, names, state, levels, table, logits, keys,
                queries, highest[names], counts, by_row, heavy_number, heavy, heavy_mass,
            )  # fmt: skip
            out[p] = history[length:]


@kernel
def _walk_on(
    history: NDArray[np.int32],
    length: int,
    window: int,
    present: IntArray,
    state: NDArray[np.uint64],
    levels: FloatArray,
    table: FloatArray | None,
    logits: FloatArray,
    keys: FloatArray,
    queries: FloatArray,
    highest: FloatArray,
    counts: FloatArray,
    by_row: FloatArray,
    heavy_number: IntArray,
    heavy: NDArray[np.int32],
    heavy_mass: FloatArray,
) -> None:
    """Fill a path behind its first `length` tokens.

    present lists its tokens, and highest bounds their logits; counts are zeros, and are left so; what is known of a
    row is kept in by_row, heavy_number, heavy and heavy_mass, whatever they held before.
    """
    number = present.shape[0]
    bound, base, top = by_row[:, 0], by_row[:, 1], by_row[:, 2]
    coarse, refused, limit = by_row[:, 3], by_row[:, 4], by_row[:, 5]
    scores, reach = np.empty(number), np.empty(MOST_HEAVY)
    for k in range(number):
        token = present[k]
        # A row is looked at when the draws it refused have cost as much; `limit` is 0 before the first look.
        limit[token] = 0.0
        refused[token] = 0.0
        heavy_number[token] = 0
        base[token] = highest[k]
        top[token] = np.inf
        bound[token] = 1.0 if table is None else np.exp(highest[k])
        coarse[token] = _COARSE / bound[token]
    most_patient = 0.3 * number
    patience = most_patient
    for t in range(max(0, length - window), length):
        counts[history[t]] += 1.0
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    query = int(history[length - 1])
    for t in range(length, history.shape[0]):
        size = min(t, window)
        token, fresh = -1, True
        total, light, h = 0.0, 0.0, 0
        while token < 0:
            if fresh:
                h = heavy_number[query]
                if h < 0:
                    word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                    token = draw_by_sum(present, counts, logits, keys, queries, query, scores, unit(word))
                    break
                light = size * bound[query]
                total = light
                for k in range(0, h, 4):
                    # Four at a time, so that sums wait for one another a quarter as often.
                    one = counts[U64(heavy[query, k])] * heavy_mass[query, k]
                    two = one + counts[U64(heavy[query, k + 1])] * heavy_mass[query, k + 1]
                    third = counts[U64(heavy[query, k + 2])] * heavy_mass[query, k + 2]
                    fourth = counts[U64(heavy[query, k + 3])] * heavy_mass[query, k + 3]
                    reach[k], reach[k + 1], reach[k + 2] = total + one, total + two, total + (two + third)
                    total += two + (third + fourth)
                    reach[k + 3] = total
                fresh = False
            # Two draws at once, so that their waits for memory overlap and few branches are left.
            word_0, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
            word_1, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
            token_0 = _at(history, t - 1 - int(unit(word_0) * size))
            token_1 = _at(history, t - 1 - int(unit(word_1) * size))
            b, c, high = base[query], coarse[query], top[query]
            over_0 = _over(table, logits, keys, queries, levels, b, c, high, query, token_0, word_0)
            over_1 = _over(table, logits, keys, queries, levels, b, c, high, query, token_1, word_1)
            if (0 < over_0 < 1) | (0 < over_1 < 1):
                if table is None:
                    over_0 = _exactly(over_0, score(logits, keys, queries, query, token_0) - b, word_0)
                    over_1 = _exactly(over_1, score(logits, keys, queries, query, token_1) - b, word_1)
                word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                over_0 += 1.0 - unit(word) if over_0 > 0 else 0.0
                word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                over_1 += 1.0 - unit(word) if over_1 > 0 else 0.0
            if h == 0:
                # One branch on the better of two, which is seldom wrong; which of them it was is plain arithmetic.
                better = over_0 if over_0 > over_1 else over_1
                if better >= 1:
                    token = token_0 if over_0 >= 1 else token_1
            else:
                word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                at = unit(word) * total
                if at < light and not over_0 >= 1:
                    word, s0, s1, s2, s3 = next_word(s0, s1, s2, s3)
                    at = unit(word) * total
                    token_0, over_0 = token_1, over_1
                if at < light:
                    token = token_0 if over_0 >= 1 else -1
                elif at < total:
                    passed = 0
                    while at >= reach[passed]:
                        passed += 1
                    token = int(heavy[query, passed])
            if token >= 0:
                break
            refused[query] += 2.0
            if refused[query] > max(limit[query], patience):
                draws = look_at_row(
                    present, counts, table, logits, keys, queries, query, size, scores, base, bound, top,
                    heavy_number, heavy, heavy_mass,
                )  # fmt: skip
                if limit[query] == 0:
                    # Where the bound was poor here, it is not tried for as long on the next row.
                    patience = max(8.0, 0.5 * patience) if draws > _POOR else min(most_patient, 2.0 * patience)
                coarse[query] = _COARSE / max(bound[query], _SMALLEST)
                refused[query] = 0.0
                limit[query] = max(2.0 * limit[query], most_patient)
                fresh = True
        query = token
        history[t] = token
        counts[token] += 1.0
        if t >= window:
            counts[history[t - window]] -= 1.0
    for k in range(number):
        counts[present[k]] = 0.0


@kernel
def _distinct(prompt: NDArray[np.int32], counts: FloatArray) -> IntArray:
    """The different tokens of a prompt, ascending. counts are zeros, and stay."""
    names = np.empty(min(counts.shape[0], prompt.shape[0]), np.int64)
    number = 0
    for token in prompt:
        if counts[token] == 0.0:
            counts[token] = 1.0
            names[number] = token
            number += 1
    for k in range(number):
        counts[names[k]] = 0.0
    found = names[:number]
    found.sort()
    return found
