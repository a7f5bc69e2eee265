"""Kernels of two context logits with a hidden state: the filter, its smoothed pairs, and the walk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compiled import kernel
from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.state import follow, forget
from ccmc._logit.walk_arrays import After, BaseArrays, LawArrays, State
from ccmc._logit.walk_kernels import add, base_of_types, chosen, draw, new_state, number, utilities
from ccmc._sim.random import seed_stream


@kernel
def filter_states(
    ptr: IntArray, log_q: FloatArray, transition: FloatArray, first: FloatArray, before: FloatArray, last: FloatArray
) -> None:
    """Probability of each state before each token, from the tokens before it.

    Args:
        ptr: [texts + 1] where the tokens of each text begin.
        log_q: [n, S] log probability of the token in each state, up to a number for all states.
        transition: [S, S] from row to column; first: [S] at the first token.
        before: [n, S] gets the probabilities.
        last: [texts, S] gets those after the last token.
    """
    states = len(first)
    p = np.empty(states)
    for text in range(len(ptr) - 1):
        p[:] = first
        for n in range(ptr[text], ptr[text + 1]):
            before[n] = p
            move(p, log_q[n], transition)
        last[text] = p


@kernel
def move(p: FloatArray, log_q: FloatArray, transition: FloatArray) -> None:
    """Probabilities of the states before a token into those before the next, in place."""
    states, top, total = len(p), log_q.max(), 0.0
    seen = np.empty(states)
    for z in range(states):
        seen[z] = p[z] * np.exp(log_q[z] - top)
        total += seen[z]
    p[:] = 0.0
    for z in range(states):
        for y in range(states):
            p[y] += seen[z] / total * transition[z, y]


@kernel
def count_pairs(
    ptr: IntArray, log_q: FloatArray, before: FloatArray, transition: FloatArray, pairs: FloatArray, firsts: FloatArray
) -> None:
    """Add the expected transitions [S, S] and first states [S], given all tokens; arguments as of `filter_states`."""
    states = transition.shape[0]
    for text in range(len(ptr) - 1):
        low, high = ptr[text], ptr[text + 1]
        later, own, joint = np.ones(states), np.empty(states), np.empty((states, states))
        for n in range(high - 1, low - 1, -1):  # `later`: probability of the tokens after n, by the state at n
            top = log_q[n].max()
            if n < high - 1:
                after = log_q[n + 1].max()
                for y in range(states):
                    own[y] = later[y] * np.exp(log_q[n + 1, y] - after)
                for z in range(states):
                    now = before[n, z] * np.exp(log_q[n, z] - top)
                    for y in range(states):
                        joint[z, y] = now * transition[z, y] * own[y]
                pairs += joint / joint.sum()
                later = transition @ own
                later /= later.sum()
        top = log_q[low].max()
        for z in range(states):
            own[z] = before[low, z] * np.exp(log_q[low, z] - top) * later[z]
        firsts += own / own.sum()


@kernel
def log_total(u: FloatArray, many: int, top: float, rest: float) -> float:
    """log of the sum of the weights of the types of the context, whose largest utility is `top`, and of all others."""
    if rest > 0.0:
        top = max(top, np.log(rest))
    total = rest * np.exp(-top)
    for c in range(many):
        total += np.exp(u[c] - top)
    return float(np.log(total) + top)


@kernel
def walk_regimes(
    prompt: IntArray, key: NDArray[np.uint64], name: NDArray[np.uint64], one: LawArrays, two: LawArrays,
    base: BaseArrays, transition: FloatArray, first: FloatArray, out: IntArray,
) -> None:  # fmt: skip
    """Continue one prompt.

    Args:
        prompt: [L] tokens.
        key, name: [4] of the seed and [3] of the path.
        one, two: the laws of the states, with the same weight of log P0.
        base: P0.
        transition: [2, 2]; first: [2] probability of the states after the prompt.
        out: [steps].
    """
    start, size, depth = len(prompt), len(prompt) + len(out), len(one.levels)
    state = new_state(len(base.row), size, depth, base.hidden.shape[1])
    other = State(
        state.place, state.types, state.local, np.zeros(size), np.zeros(size), np.zeros((depth, size)),
        np.zeros(size, np.int64), np.full(size, -1, np.int64), np.empty(size, np.int64), np.zeros(size, np.int64),
        state.log_base, state.within, state.known, state.keys,
    )  # fmt: skip
    after = After(
        np.zeros((depth, size)), np.zeros(depth + 1), np.zeros(size, np.int64), np.full(depth, -1, np.int64),
        np.zeros(size, np.int64),
    )  # fmt: skip
    u, scratch, stream = np.empty((2, size)), np.empty(size), np.empty(4, np.uint64)
    drawn, log_q, p = np.empty(size), np.empty(2), first.copy()
    bits = scratch.view(np.int64)
    seed_stream(key, name, stream)
    many = 0
    for token in prompt:
        many = number(token, many, state, base)
    for n in range(1, size):
        token = prompt[n - 1] if n <= start else out[n - 1 - start]
        at = state.place[token]
        add(at, n, state, one, base.log_unigram)
        add(at, n, other, two, base.log_unigram)
        count = follow(
            state.local, n, state.previous, state.length, one.levels, after.followed, after.total, after.longest,
            after.latest, after.touched,
        )  # fmt: skip
        if n >= start:
            base_of_types(token, many, one.base, state, base)
            tops = (
                utilities(n, many, count, state, after, one, u[0]),
                utilities(n, many, count, other, after, two, u[1]),
            )
            stored = base.row[token]
            whole, within = one.sums[stored if stored >= 0 else len(one.sums) - 1], state.within[at]
            rest = 0.0 if whole - within <= 1e-14 * whole else whole - within
            z = 0 if draw(stream) < p[0] else 1
            drawn[:many] = u[z, :many]
            law = one if z == 0 else two
            new = chosen(token, many, tops[z], drawn, state, law, base, stream, scratch, bits)
            c = state.place[new]
            for y in range(2):
                log_q[y] = (u[y, c] if c >= 0 else 0.0) - log_total(u[y], many, tops[y], rest)
            move(p, log_q, transition)
            out[n - start] = new
            many = number(new, many, state, base)
        forget(after.touched, count, after.followed, after.longest)
