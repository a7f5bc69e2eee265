"""Rollouts of chains as compiled loops: what `continue_one` does step by step, for surrogates that are chains.

A chain gives token j of the context, after query i, the weight m_j exp(theta[i, j]); a mixture adds several up. The
strategy of the real model (penalties, temperature, cuts) and the escape act on that as they do in `decoding`.
`ccmc.simulate` draws from one chain as it is, and so serves neither mixtures nor strategies nor an escape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from scipy import sparse

from harness.surrogates._fitting.decoding import Decoding

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class ChainTerms:
    """A mixture of chains and of the share of the counts, over the local vocabulary.

    theta_h[i, j] = cap_h(queries[h, i] . keys[h, j]) + pairs[i, j].

    Attributes:
        weights: [H] of the chains.
        queries, keys: [H, K, d]; d may be 0.
        softcap: [H], 0 for none: c tanh(score / c).
        pairs: [K, K] (CSR) added to the logits of every chain; None for nothing.
        counts_weight: weight of the share of the counts.
        counted: do the counts multiply exp(theta)? A Markov chain restricted to its context does not count.
    """

    weights: FloatArray
    queries: FloatArray
    keys: FloatArray
    softcap: FloatArray
    pairs: sparse.csr_array | None = None
    counts_weight: float = 0.0
    counted: bool = True

    @classmethod
    def single(
        cls, queries: FloatArray, keys: FloatArray, pairs: sparse.csr_array | None = None, counted: bool = True
    ) -> ChainTerms:
        """One chain with theta = queries [K, d] keys [K, d]^T + pairs."""
        return cls(np.ones(1), queries[None], keys[None], np.zeros(1), pairs, 0.0, counted)

    @classmethod
    def counts_alone(cls, vocab_size: int) -> ChainTerms:
        """The share of the counts, over `vocab_size` tokens."""
        none = np.zeros((0, vocab_size, 0))
        return cls(np.zeros(0), none, none, np.zeros(0), counts_weight=1.0)

    @property
    def vocab_size(self) -> int:
        return int(self.keys.shape[1])


@dataclass(frozen=True, slots=True)
class Leaving:
    """How a chain leaves its context, as arrays.

    Attributes:
        rate: [K] mass that goes elsewhere after each query.
        overall: [K] where to; 0 for tokens that cannot be reached.
        pairs: [K, K] (CSR) what is added to it after a query.
    """

    rate: FloatArray
    overall: FloatArray
    pairs: sparse.csr_array


def walk(
    terms: ChainTerms,
    prompts: Sequence[IntArray],
    uniforms: Sequence[FloatArray],
    decoding: Decoding,
    leaving: Leaving | None = None,
) -> list[IntArray]:
    """Continue prompts, each by as many tokens as it has uniforms.

    Args:
        terms: the chains.
        prompts: local ids, at least one each.
        uniforms: numbers in [0, 1), one per step; each decides a sample.
        decoding: the strategy of the real model, without beams.
        leaving: how it leaves the context; None: never.

    Raises:
        ValueError: the strategy has beams.
    """
    if decoding.beams is not None:
        raise ValueError("beam search keeps several histories; it is not a walk")
    size = terms.vocab_size
    nothing = sparse.csr_array((size, size))
    pairs = nothing if terms.pairs is None else terms.pairs
    to = Leaving(np.zeros(size), np.zeros(size), nothing) if leaving is None else leaving
    strategy = np.array(
        [
            0.0 if decoding.temperature is None else decoding.temperature,
            0.0 if decoding.top_k is None else decoding.top_k,
            1.0 if decoding.top_p is None else decoding.top_p,
            0.0 if decoding.min_p is None else decoding.min_p,
            1.0 if decoding.repetition_penalty is None else decoding.repetition_penalty,
            0.0 if decoding.no_repeat_ngram is None else decoding.no_repeat_ngram,
        ]
    )
    chain = (terms.weights, terms.queries, terms.keys, terms.softcap, *_csr(pairs), terms.counts_weight, terms.counted)
    away = (to.rate, to.overall, *_csr(to.pairs))
    return [
        _walk_one(np.asarray(prompt, dtype=np.int64), draws, strategy, chain, away)
        for prompt, draws in zip(prompts, uniforms, strict=True)
    ]


def _csr(table: sparse.csr_array) -> tuple[IntArray, IntArray, FloatArray]:
    return table.indptr.astype(np.int64), table.indices.astype(np.int64), table.data.astype(float)


@numba.njit(cache=True, nogil=True, fastmath=False)
def _walk_one(prompt, uniforms, strategy, chain, away):  # type: ignore[no-untyped-def]
    """Continue one prompt."""
    size, length, steps = len(away[0]), len(prompt), len(uniforms)
    history = np.empty(length + steps, np.int64)
    history[:length] = prompt
    counts, last_seen = np.zeros(size), np.full(size, -1)
    active, types = np.empty(size, np.int64), 0  # the tokens of the context, in the order of their first time
    p, buffer, row = np.zeros(size), np.zeros(size), np.zeros(size)
    for place in range(length + steps):
        if place >= length:
            now = history[:place]
            _inside(p, buffer, row, active[:types], counts, now[-1], chain)
            _outside(p, buffer, counts, now[-1], away)
            _penalise(p, buffer, active[:types], now, strategy)
            history[place] = _choose(p, last_seen, uniforms[place - length], strategy)
        token = history[place]
        if counts[token] == 0.0:
            active[types] = token
            types += 1
        counts[token] += 1.0
        last_seen[token] = place
    return history[length:]


@numba.njit(cache=True, nogil=True, fastmath=False)
def _inside(p, score, row, active, counts, query, chain):  # type: ignore[no-untyped-def]
    """The distribution over the context, into p; what is outside gets 0. `row` is 0 before and after."""
    weights, queries, keys, softcap, starts, columns, values, counts_weight, counted = chain
    p[:] = 0.0
    for k in range(starts[query], starts[query + 1]):
        row[columns[k]] = values[k]
    for h in range(len(weights)):
        asks, top = queries[h, query], -np.inf
        for j in active:
            product = 0.0
            for c in range(len(asks)):
                product += asks[c] * keys[h, j, c]
            if softcap[h] > 0:
                product = softcap[h] * np.tanh(product / softcap[h])
            score[j] = product + row[j]
            top = max(top, score[j])
        total = 0.0
        for j in active:
            score[j] = np.exp(score[j] - top) * (counts[j] if counted else 1.0)
            total += score[j]
        for j in active:
            p[j] += weights[h] * score[j] / total
    seen, mass = 0.0, 0.0
    for j in active:
        seen += counts[j]
    for j in active:
        p[j] += counts_weight * counts[j] / seen
        mass += p[j]
    for j in active:
        p[j] /= mass
    for k in range(starts[query], starts[query + 1]):
        row[columns[k]] = 0.0


@numba.njit(cache=True, nogil=True, fastmath=False)
def _outside(p, where, counts, query, away):  # type: ignore[no-untyped-def]
    """Add the escape to a distribution over the context."""
    rates, overall, starts, columns, values = away
    if rates[query] == 0.0:
        return
    where[:] = overall
    for k in range(starts[query], starts[query + 1]):
        if overall[columns[k]] > 0:
            where[columns[k]] += values[k]
    total = 0.0
    for j in range(len(p)):
        if counts[j] == 0.0:
            total += where[j]
    if total == 0.0:
        return
    for j in range(len(p)):
        p[j] = (1.0 - rates[query]) * p[j] if counts[j] > 0 else where[j] * rates[query] / total


@numba.njit(cache=True, nogil=True, fastmath=False)
def _penalise(p, before, active, history, strategy):  # type: ignore[no-untyped-def]
    """Hold back tokens of the history; where that bans everything, nothing is held back."""
    penalty, ngram = strategy[4], int(strategy[5])
    if penalty == 1.0 and ngram == 0:
        return
    before[:] = p
    if penalty != 1.0:
        for j in active:
            p[j] = p[j] ** penalty
    if ngram > 0:
        tail = ngram - 1
        for end in range(tail, len(history)):
            same = True
            for back in range(1, tail + 1):
                if history[end - back] != history[len(history) - back]:
                    same = False
                    break
            if same:
                p[history[end]] = 0.0
    if not (p > 0).any():
        p[:] = before


@numba.njit(cache=True, nogil=True, fastmath=False)
def _choose(p, last_seen, uniform, strategy):  # type: ignore[no-untyped-def]
    """Choose one token, as `Decoding.choose` does."""
    temperature, top_k, top_p, min_p = strategy[0], int(strategy[1]), strategy[2], strategy[3]
    highest, best = p.max(), -1
    if temperature == 0.0:
        for j in range(len(p)):
            if p[j] >= highest * (1 - 1e-12) and (best < 0 or last_seen[j] > last_seen[best]):
                best = j
        return best
    if temperature != 1.0:
        for j in range(len(p)):
            if p[j] > 0:
                p[j] = np.exp(np.log(p[j] / highest) / temperature)
        highest = 1.0
    if 0 < top_k < len(p):
        least = np.partition(p, len(p) - top_k)[len(p) - top_k]
        for j in range(len(p)):
            if p[j] < least:
                p[j] = 0.0
    if top_p < 1.0:
        order, whole, before = np.argsort(-p, kind="mergesort"), p.sum(), 0.0
        for place in range(len(order)):
            share = p[order[place]] / whole
            if place and before >= top_p:
                p[order[place]] = 0.0
            before += share
    if min_p > 0.0:
        for j in range(len(p)):
            if p[j] < min_p * highest:
                p[j] = 0.0
    target, reached = uniform * p.sum(), 0.0
    for j in range(len(p)):
        if p[j] > 0:
            reached, best = reached + p[j], j
            if reached > target:
                break
    return best
