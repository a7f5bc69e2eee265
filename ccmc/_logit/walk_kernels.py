"""Kernels of a walk: utilities of the types of the context, the weight of everything else, a draw.

A step looks at every type of the context once, and at those that followed the last token. The utility of a type has a
part that changes when the type occurs, a part that depends on how long ago that was, which is tabled, and log P0 after
the last token, which is kept for every token that has been last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel, summing_kernel
from ccmc._data.exponentials import exponentials
from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.base_kernels import log_of_pair
from ccmc._logit.state import follow, forget, of_follower
from ccmc._logit.topic import add_similarity
from ccmc._logit.walk_arrays import After, BaseArrays, LawArrays, State
from ccmc._sim.random import next_word, seed_stream, unit

Int32Array = NDArray[np.int32]
_TRIES = 200


@kernel
def draw(state: NDArray[np.uint64]) -> float:
    """A number in [0, 1) from a stream."""
    word, state[0], state[1], state[2], state[3] = next_word(state[0], state[1], state[2], state[3])
    return unit(word)


@kernel
def from_outside(
    stream: NDArray[np.uint64], query: int, total: float, place: IntArray, law: LawArrays, base: BaseArrays
) -> int:
    """A token outside the context, in proportion to P0^a: drawn from all tokens until one is new.

    Args:
        total: sum of P0^a over all tokens.
        place: [V] number of each token of the context, -1 outside.
    """
    stored, a, tail = base.row[query], law.base, law.tail
    top = base.tokens.shape[1] if stored >= 0 else 0
    for _ in range(_TRIES):
        left = draw(stream) * total
        found = -1
        if top > 0 and left < law.cumulated[stored, top - 1]:
            found = base.tokens[stored, np.searchsorted(law.cumulated[stored], left, side="right")]
        if found < 0:  # the tail: drawn among all tokens, until it is none of the row's own
            for _again in range(_TRIES):
                at = np.searchsorted(tail, draw(stream) * tail[-1], side="right")
                found = base.frequent[min(at, len(tail) - 1)]
                own = False
                for k in range(top):
                    own = own or base.tokens[stored, k] == found
                if not own:
                    break
        if place[found] < 0:
            return found
    # almost all of P0 lies in the context: one pass over the vocabulary
    row, tokens, log_p, log_scale, log_unigram = base.row, base.tokens, base.log_p, base.log_scale, base.log_unigram
    whole = 0.0
    for token in range(len(row)):
        if place[token] < 0:
            whole += np.exp(a * log_of_pair(row, tokens, log_p, log_scale, log_unigram, query, token))
    left = draw(stream) * whole
    found = -1
    for token in range(len(row)):
        if place[token] < 0:
            found = token
            left -= np.exp(a * log_of_pair(row, tokens, log_p, log_scale, log_unigram, query, token))
            if left < 0.0:
                break
    return found


@kernel
def best_outside(query: int, place: IntArray, base: BaseArrays) -> tuple[int, float]:
    """The likeliest token of P0 outside the context, and its log P0; -1 where the context holds all."""
    stored = base.row[query]
    found, best, scale = -1, -np.inf, 0.0
    if stored >= 0:
        scale = base.log_scale[stored]
        for k in range(base.tokens.shape[1]):
            if place[base.tokens[stored, k]] < 0:
                found, best = int(base.tokens[stored, k]), base.log_p[stored, k]
                break
        if scale == -np.inf:
            return found, best
    for token in base.frequent:
        log = base.log_unigram[token] + scale
        if found >= 0 and log <= best:
            return found, best
        if place[token] < 0:
            own = False
            if stored >= 0:
                for k in range(base.tokens.shape[1]):
                    own = own or base.tokens[stored, k] == token
            if not own:
                return int(token), log
    return found, best


@summing_kernel
def logit(hidden: NDArray[np.float32], key: NDArray[np.float32]) -> float:
    """hidden . key."""
    total = np.float32(0.0)
    for d in range(len(hidden)):
        total += hidden[d] * key[d]
    return float(total)


@kernel
def base_of_types(query: int, many: int, a: float, state: State, base: BaseArrays) -> None:
    """Complete what is kept of a query: log P0 of all types of the context, and the sum of P0^a over them."""
    at, token = state.place[query], query
    first, out, stored = state.known[at], state.log_base[at], base.row[token]
    if first >= many:
        return
    if base.hidden.shape[1] > 0 and stored >= 0:
        hidden, norm = base.hidden[stored], base.log_norm[stored]
        for c in range(first, many):
            value = logit(hidden, state.keys[c]) + base.bias[state.types[c]]
            if base.cap > 0.0:
                value = base.cap * np.tanh(value / base.cap)
            out[c] = value - norm
    else:
        shift = base.log_scale[stored] if stored >= 0 else 0.0
        for c in range(first, many):
            out[c] = base.log_unigram[state.types[c]] + shift
        if stored >= 0:
            for k in range(base.tokens.shape[1]):
                c = state.place[base.tokens[stored, k]]
                if c >= first:
                    out[c] = base.log_p[stored, k]
    total = state.within[at]
    for c in range(first, many):
        total += np.exp(a * out[c]) if a != 0.0 else 1.0
    state.within[at], state.known[at] = total, many


@kernel
def number(token: int, many: int, state: State, base: BaseArrays) -> int:
    """The number of a type, new ones included. How many types there are then."""
    if state.place[token] >= 0:
        return many
    state.place[token], state.types[many] = many, token
    state.m[many], state.last[many], state.seen[many] = 0.0, 0, -1
    state.within[many], state.known[many] = 0.0, 0
    state.faded[:, many] = 0.0
    if base.hidden.shape[1] > 0:
        state.keys[many] = base.keys[token]
    return many + 1


@kernel
def add(j: int, n: int, state: State, law: LawArrays, log_unigram: FloatArray) -> None:
    """Make type j the n-th token of the context."""
    state.local[n - 1] = j
    state.previous[n - 1], state.seen[j] = state.seen[j], n - 1
    state.m[j] += 1.0
    fixed = law.present + law.log_count * np.log(state.m[j])
    if law.unigram != 0.0:
        fixed += law.unigram * log_unigram[state.types[j]]
    for k in range(len(law.levels)):
        if law.recent[k] != 0.0:
            passed = float(n - 1 - state.last[j])
            faded = state.faded[k, j] * np.exp(-passed / float(law.levels[k])) + 1.0
            state.faded[k, j] = faded
            fixed += law.recent[k] * np.log(faded)
    state.last[j], state.fixed[j] = n - 1, fixed


@kernel
def grown(j: int, n: int, state: State, after: After, law: LawArrays, log_unigram: FloatArray) -> int:
    """Make type j the n-th token of the context, and find what followed it. How many types did."""
    add(j, n, state, law, log_unigram)
    return follow(
        state.local, n, state.previous, state.length, law.levels, after.followed, after.total, after.longest,
        after.latest, after.touched,
    )  # fmt: skip


@kernel
def utilities(n: int, many: int, count: int, state: State, after: After, law: LawArrays, u: FloatArray) -> float:
    """Utilities of the types of the context into `u`. Their largest."""
    log_base, fixed, last, aged, a = state.log_base[state.local[n - 1]], state.fixed, state.last, law.aged, law.inside
    for c in range(many):
        u[c] = (a * log_base[c] if a != 0.0 else 0.0) + fixed[c] + aged[n - last[c]]
    for index in range(count):
        j = after.touched[index]
        total = 0.0
        for d in range(len(law.kinds)):
            total += law.w[d] * of_follower(
                law.kinds[d], law.slots[d], j, after.followed, after.total, after.longest, after.latest, log_base[j]
            )
        u[j] += total
    if law.similarity != 0.0:
        add_similarity(n, many, law.similarity, state.local, state.keys, u)
    if law.offset == 2:
        for c in range(many):
            times = state.m[c] if after.total[0] == 0.0 else after.followed[0, c]
            u[c] += law.heat * np.log(times)
    top = -np.inf
    for c in range(many):
        top = max(top, u[c])
    return top


@kernel
def chosen(
    query: int, many: int, top: float, u: FloatArray, state: State, law: LawArrays, base: BaseArrays,
    stream: NDArray[np.uint64], scratch: FloatArray, bits: IntArray,
) -> int:  # fmt: skip
    """The next token, from utilities of the types of the context; these are overwritten."""
    stored = base.row[query]
    whole, within = law.sums[stored if stored >= 0 else len(law.sums) - 1], state.within[state.place[query]]
    rest = 0.0 if law.closed == 1 or whole - within <= 1e-14 * whole else whole - within
    if law.greedy == 1:
        if rest > 0.0:
            other, log = best_outside(query, state.place, base)
            if other >= 0 and law.base * log > top:
                return other
        return int(state.types[np.argmax(u[:many])])
    if rest > 0.0:
        top = max(top, np.log(rest))
    z = rest * np.exp(-top)
    for c in range(many):
        u[c] -= top
    exponentials(u, many, scratch, bits)
    for c in range(many):
        z += u[c]
    left = draw(stream) * z
    for c in range(many):
        left -= u[c]
        if left < 0.0:
            return int(state.types[c])
    if rest > 0.0:
        return from_outside(stream, query, whole, state.place, law, base)
    return int(state.types[many - 1])


@kernel
def new_state(vocab: int, size: int, depth: int, width: int) -> State:
    """An empty context of up to `size` tokens."""
    return State(
        np.full(vocab, -1, np.int64), np.empty(size, np.int64), np.empty(size + 1, np.int64),
        np.zeros(size), np.zeros(size), np.zeros((depth, size)), np.zeros(size, np.int64), np.full(size, -1, np.int64),
        np.empty(size, np.int64), np.zeros(size, np.int64),
        np.empty((size, size)), np.zeros(size), np.zeros(size, np.int64), np.empty((size, width), np.float32),
    )  # fmt: skip


@kernel
def walks(
    prompt: IntArray, key: NDArray[np.uint64], names: NDArray[np.uint64], law: LawArrays, base: BaseArrays,
    out: IntArray,
) -> None:  # fmt: skip
    """Continue one prompt several times; what all paths share is done once.

    Args:
        prompt: [L] tokens.
        key, names: [4] of the seed and [R, 3] of the paths: what their random streams are made of.
        law, base: as they say.
        out: [R, steps].
    """
    start, (paths, steps) = len(prompt), out.shape
    size, depth = start + steps, len(law.levels)
    state = new_state(len(base.row), size, depth, base.hidden.shape[1])
    after = After(
        np.zeros((depth, size)), np.zeros(depth + 1), np.zeros(size, np.int64), np.full(depth, -1, np.int64),
        np.zeros(size, np.int64),
    )  # fmt: skip
    u, scratch, stream, first = np.empty(size), np.empty(size), np.empty(4, np.uint64), 0
    bits = scratch.view(np.int64)
    for token in prompt:
        first = number(token, first, state, base)
    for n in range(1, start):
        count = grown(state.place[prompt[n - 1]], n, state, after, law, base.log_unigram)
        forget(after.touched, count, after.followed, after.longest)
    m, fixed, faded = state.m.copy(), state.fixed.copy(), state.faded.copy()
    last, seen, length = state.last.copy(), state.seen.copy(), state.length.copy()
    inner = np.zeros(size)
    for path in range(paths):
        seed_stream(key, names[path], stream)
        many, token = first, prompt[start - 1]
        for n in range(start, size):
            count = grown(state.place[token], n, state, after, law, base.log_unigram)
            at = state.place[token]
            if at < first and state.known[at] < first:
                base_of_types(token, first, law.base, state, base)
                inner[at] = state.within[at]
            base_of_types(token, many, law.base, state, base)
            top = utilities(n, many, count, state, after, law, u)
            forget(after.touched, count, after.followed, after.longest)
            token = chosen(token, many, top, u, state, law, base, stream, scratch, bits)
            out[path, n - start] = token
            many = number(token, many, state, base)
        if path + 1 < paths:
            for c in range(first, many):
                state.place[state.types[c]] = -1
            for c in range(first):
                state.m[c], state.fixed[c], state.last[c], state.seen[c] = m[c], fixed[c], last[c], seen[c]
                state.faded[:, c] = faded[:, c]
                if state.known[c] > first:
                    state.known[c], state.within[c] = first, inner[c]
            state.length[:start] = length[:start]
