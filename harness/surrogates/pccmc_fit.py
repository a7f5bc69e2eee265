"""`pccmc-fit`: the position-aware chain of the weights, with a fitted scale, distances and token pairs on top.

theta[query, key, distance] = c score read off the weights + b[distance bucket] + delta[query, key], by position-level
maximum likelihood with a ridge towards c = 1, b = 0, delta = 0, per head. The weights alone, the weights with scale and
distances, and those with pairs under several ridges are tried on kept-back training prompts; each head takes what is
best there.

The scores of a layer's training texts are kept while it is fitted. Where they are too many, the fit takes a random part
of the training prompts: long texts then give fewer, and memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy import sparse

from harness.minimise import minimise_each
from harness.seeds import derive_seed
from harness.sources.blocks import Block, View
from harness.sources.static_inputs import StaticHeads
from harness.surrogates.along import HeadSurrogate, LogWeights, added, delta_tables, fitted_odds, on, sink_along
from harness.surrogates.base import FloatArray, IntArray, Observations
from harness.surrogates.ccmc_fit import inner_folds
from harness.surrogates.distance import BUCKETS, profile_of
from harness.surrogates.from_weights import PCCMCWeights
from harness.surrogates.position_loss import Entries, gather, log_normalisers
from harness.surrogates.sink_fit import SinkFit, fit_sink

PAIR_RIDGES = (10.0, 3.0, 1.0, 0.3, 0.1)
RIDGE = 1.0
MOST_SCORES = 100_000_000  # over heads and pairs of positions; four bytes each are kept while a layer is fitted
_NONE, _DISTANCES = -1, 0  # choices of a head besides the ridges, which count from 1


@dataclass(frozen=True)
class _Parameters:
    """Scale [A], distance offsets [A, D] and pair offsets [A, P] of some heads."""

    c: FloatArray
    b: FloatArray
    delta: FloatArray

    def of(self, heads: IntArray) -> _Parameters:
        return _Parameters(self.c[heads], self.b[heads], self.delta[heads])


@dataclass(frozen=True)
class _Masses:
    """What a loss needs of the attention of heads: score [H], distance [H, D], pair [H, P]."""

    score: FloatArray
    distance: FloatArray
    pair: FloatArray


def affordable(observations: Observations, seed: int, most: int = MOST_SCORES) -> Observations:
    """As many prompts, drawn at random, as have at most so many scores in all; two at least, where there are two."""
    cost: dict[str, int] = {}
    for group, text in zip(observations.groups, observations.texts, strict=True):
        cost[group] = cost.get(group, 0) + int(text.seen.sum()) * observations.heads
    if sum(cost.values()) <= most:
        return observations
    names = sorted(cost)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    total = np.cumsum([cost[name] for name in order])
    return observations.part(set(order[: max(2, int(np.searchsorted(total, most, side="right")))]))


def _masses(of: Observations, pair: FloatArray) -> _Masses:
    return _Masses(np.sum(of.score_mass, axis=0), np.sum(of.distance_mass, axis=0), pair)


class PCCMCFit(HeadSurrogate):
    """Position-aware weights with a fitted scale, distances and token pairs.

    Args:
        heads: the layer's heads, asked per token and position.
        seed: of the inner split.
        folds: one of so many parts of the training prompts is kept back to choose.
        tol: of the fits, on the largest gradient entry in units of its standard deviation.
        threads: that share the heads.
    """

    name = "pccmc-fit"
    choice_: IntArray
    c_: FloatArray
    b_: FloatArray
    delta_: list[sparse.csr_array]
    sink_: SinkFit | None = None

    def __init__(self, heads: StaticHeads, seed: int, folds: int = 4, tol: float = 1e-3, threads: int = 2) -> None:
        self.heads, self.seed, self.folds, self.tol, self.threads = heads, seed, folds, tol, threads

    def fit(self, observations: Observations) -> Self:
        if len(observations.score_mass) != len(observations.texts):
            raise ValueError("pccmc-fit needs the score mass of every text")
        prior_odds = observations.prior_sink_odds.get(PCCMCWeights.name, ())
        if prior_odds:
            self.sink_ = fit_sink(observations.texts, observations.sink_odds, prior_odds, observations.vocab_size)
        observations = affordable(observations, derive_seed(self.seed, "affordable"))
        groups = inner_folds(observations.groups, self.folds, derive_seed(self.seed, "inner"))
        if len(groups) < 2:
            self.choice_ = np.full(observations.heads, _DISTANCES)
        else:
            inner, outer = observations.part(set(observations.groups) - groups[0]), observations.part(groups[0])
            self.choice_ = self._choose(inner, outer)
        found = self._final(observations)
        pattern = observations.pattern
        self.c_, self.b_ = found.c, found.b
        self.delta_ = [
            sparse.csr_array((delta, pattern.indices, pattern.indptr), shape=pattern.shape) for delta in found.delta
        ]
        return self

    def _entries(self, of: Observations, known: Observations) -> Entries:
        pairs = _pair_codes(known)
        return gather(self.heads, of.texts, pairs, of.vocab_size)

    def _choose(self, inner: Observations, outer: Observations) -> IntArray:
        """[H] the choice that is best on the prompts kept back."""
        mass, entries = _masses(inner, inner.pair_wins), self._entries(inner, inner)
        outer_mass, kept_back = _masses(outer, _wins(outer, inner)), self._entries(outer, inner)
        found = _start(inner)
        losses = [self._loss(kept_back, outer_mass, found)]
        for ridge in (np.inf, *PAIR_RIDGES):
            found = self._solve(np.arange(inner.heads), mass, entries, np.full(inner.heads, ridge), found)
            losses.append(self._loss(kept_back, outer_mass, found))
        choice: IntArray = np.argmin(losses, axis=0) + _NONE
        return choice

    def _final(self, of: Observations) -> _Parameters:
        """The parameters of each head's choice, from all texts."""
        mass, entries = _masses(of, of.pair_wins), self._entries(of, of)
        found = _start(of)
        ridges = np.array([np.inf, *PAIR_RIDGES])
        for wanted, choice in (
            (self.choice_ >= _DISTANCES, np.full_like(self.choice_, _DISTANCES)),
            (self.choice_ > _DISTANCES, self.choice_),
        ):
            heads = np.flatnonzero(wanted)
            if len(heads):
                solved = self._solve(heads, mass, entries, ridges[choice[heads]], found.of(heads))
                found.c[heads], found.b[heads], found.delta[heads] = solved.c, solved.b, solved.delta
        return found

    def _solve(
        self, heads: IntArray, mass: _Masses, entries: Entries, ridge: FloatArray, start: _Parameters
    ) -> _Parameters:
        """Minimise over c and b, and over delta too unless its ridge is infinite.

        Args:
            heads: [A] which.
            mass: of all heads.
            entries: of the texts.
            ridge: [A] of delta; infinite for all heads or for none.
            start: of these heads.
        """
        pairs, few = bool(np.isfinite(ridge[0])), 1 + BUCKETS
        # in units in which the curvature of every parameter is of order 1
        spread = np.array([np.var(entries.score[head]) for head in heads]) * (len(entries.start) - 1)
        curvature = [spread[:, None] + RIDGE, mass.distance[heads] + RIDGE]
        x0 = [start.c[:, None], start.b]
        if pairs:
            curvature.append(mass.pair[heads] + ridge[:, None])
            x0.append(start.delta)
        scale = 1.0 / np.sqrt(np.concatenate(curvature, axis=1))

        def objective(which: IntArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
            of, y = heads[which], np.empty_like(x)
            for row, number in enumerate(which):
                np.multiply(x[row], scale[number], out=y[row])
            p = _Parameters(y[:, 0].copy(), y[:, 1:few], y[:, few:])  # of no pairs as long as these are not fitted
            rows, gradient = self._normalisers(entries, of, p)
            value = rows - p.c * mass.score[of] - (p.b * mass.distance[of]).sum(1)
            value += 0.5 * RIDGE * ((p.c - 1.0) ** 2 + (p.b**2).sum(1))
            gradient[:, 0] += RIDGE * (p.c - 1.0) - mass.score[of]
            gradient[:, 1:few] += RIDGE * p.b - mass.distance[of]
            for row, number in enumerate(which):
                if pairs:
                    delta, won = p.delta[row], mass.pair[of[row]]
                    value[row] += 0.5 * ridge[number] * float(delta @ delta) - float(delta @ won)
                    gradient[row, few:] += ridge[number] * delta - won
                gradient[row] *= scale[number]
            return value, gradient

        tol = self.tol * np.sqrt(len(entries.start))
        y = minimise_each(objective, np.concatenate(x0, axis=1) / scale, tol, fall=1e-6, most=60) * scale
        return _Parameters(y[:, 0], y[:, 1:few], y[:, few:] if pairs else start.delta)

    def _normalisers(self, entries: Entries, heads: IntArray, p: _Parameters) -> tuple[FloatArray, FloatArray]:
        """[A] logarithms of normalisers, summed over rows, and [A, 1 + D + P] their gradient."""
        few = 1 + p.b.shape[1]
        total, gradient = np.zeros(len(heads)), np.zeros((len(heads), few + p.delta.shape[1]))
        given = entries.score, entries.start, entries.bucket, entries.pair
        into = total, gradient[:, 0], gradient[:, 1:few], gradient[:, few:]
        parts = np.array_split(np.arange(len(heads)), min(self.threads, len(heads)))
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda part: log_normalisers(*given, part, heads, p.c, p.b, p.delta, *into), parts))
        return total, gradient

    def _loss(self, entries: Entries, mass: _Masses, p: _Parameters) -> FloatArray:
        """[H] of all heads."""
        rows, _ = self._normalisers(entries, np.arange(len(p.c)), p)
        given = p.c * mass.score + (p.b * mass.distance).sum(1)
        loss: FloatArray = rows - given - [float(d @ m) for d, m in zip(p.delta, mass.pair, strict=True)]
        return loss

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        prior = PCCMCWeights(self.heads).along(view)
        profile = on(view, profile_of(self.b_, view.length))
        change, c = delta_tables(self.delta_, view), on(view, self.c_)[:, None, None]
        sink = sink_along(self.sink_, view)

        def of(block: Block) -> LogWeights:
            given = prior(block)
            odds = fitted_odds(sink, given, block, PCCMCWeights.name)
            values = block.of_distance(profile[block.heads]).addcmul_(given.values, c[block.heads])
            values += block.spread(added(change, block))
            return LogWeights(values, by_token=False, sink_odds=odds)

        return of

    @property
    def device(self) -> torch.device:
        return self.heads.at_start.key.device


def _start(of: Observations) -> _Parameters:
    return _Parameters(np.ones(of.heads), np.zeros((of.heads, BUCKETS)), np.zeros_like(of.pair_wins))


def _pair_codes(observations: Observations) -> IntArray:
    pattern = observations.pattern
    query = np.repeat(np.arange(pattern.shape[0], dtype=np.int64), np.diff(pattern.indptr))
    return query * pattern.shape[0] + pattern.indices


def _wins(of: Observations, known: Observations) -> FloatArray:
    """[H, P] target mass of some texts on the pairs of others; what falls on other pairs has no parameter."""
    codes = _pair_codes(known)
    wins = np.zeros((of.heads, len(codes)))
    for win in of.wins:
        place = np.minimum(np.searchsorted(codes, win.pair), len(codes) - 1)
        kept = codes[place] == win.pair
        wins[:, place[kept]] += win.mass[:, kept]
    return wins
