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
from scipy.optimize import minimize

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
    """One head's scale, distance offsets [D] and pair offsets [P]."""

    c: float
    b: FloatArray
    delta: FloatArray


@dataclass(frozen=True)
class _Masses:
    """What a loss needs of one head's attention."""

    score: float
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


def _masses(of: Observations, head: int, pair: FloatArray) -> _Masses:
    score = float(np.sum([m[head] for m in of.score_mass]))
    return _Masses(score, np.sum([m[head] for m in of.distance_mass], axis=0), pair)


class PCCMCFit(HeadSurrogate):
    """Position-aware weights with a fitted scale, distances and token pairs.

    Args:
        heads: the layer's heads, asked per token and position.
        seed: of the inner split.
        folds: one of so many parts of the training prompts is kept back to choose.
        tol: of the fits, on the largest gradient entry in units of its standard deviation.
        threads: heads fitted at once.
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
        heads = range(observations.heads)
        if len(groups) < 2:
            self.choice_ = np.full(observations.heads, _DISTANCES)
        else:
            inner, outer = observations.part(set(observations.groups) - groups[0]), observations.part(groups[0])
            entries, kept_back = self._entries(inner, inner), self._entries(outer, inner)
            wins = _wins(outer, inner)
            with ThreadPoolExecutor(self.threads) as pool:
                chosen = pool.map(lambda head: self._choose(head, inner, entries, outer, kept_back, wins), heads)
                self.choice_ = np.array(list(chosen))
            del entries, kept_back
        entries = self._entries(observations, observations)
        with ThreadPoolExecutor(self.threads) as pool:
            found = list(pool.map(lambda head: self._final(head, observations, entries), heads))
        pattern = observations.pattern
        self.c_ = np.array([p.c for p in found])
        self.b_ = np.stack([p.b for p in found])
        self.delta_ = [sparse.csr_array((p.delta, pattern.indices, pattern.indptr), shape=pattern.shape) for p in found]
        return self

    def _entries(self, of: Observations, known: Observations) -> Entries:
        pairs = _pair_codes(known)
        return gather(self.heads, of.texts, pairs, of.vocab_size)

    def _choose(
        self,
        head: int,
        inner: Observations,
        entries: Entries,
        outer: Observations,
        kept_back: Entries,
        wins: FloatArray,
    ) -> int:
        mass = _masses(outer, head, wins[head])
        found = self._start(inner)
        losses = {_NONE: _loss(kept_back, head, mass, found)}
        for number, ridge in enumerate((np.inf, *PAIR_RIDGES), start=_DISTANCES):
            found = self._solve(head, inner, entries, ridge, found)
            losses[number] = _loss(kept_back, head, mass, found)
        return min(losses, key=lambda choice: losses[choice])

    def _final(self, head: int, of: Observations, entries: Entries) -> _Parameters:
        found = self._start(of)
        for number, ridge in enumerate((np.inf, *PAIR_RIDGES), start=_DISTANCES):
            if number in {_DISTANCES, self.choice_[head]} and self.choice_[head] >= number:
                found = self._solve(head, of, entries, ridge, found)
        return found

    def _start(self, of: Observations) -> _Parameters:
        return _Parameters(1.0, np.zeros(BUCKETS), np.zeros(of.pair_wins.shape[1]))

    def _solve(self, head: int, of: Observations, entries: Entries, ridge: float, start: _Parameters) -> _Parameters:
        """Minimise over c and b, and over delta too unless its ridge is infinite."""
        mass, pairs, few = _masses(of, head, of.pair_wins[head]), np.isfinite(ridge), 1 + BUCKETS
        # in units in which the curvature of every parameter is of order 1
        spread = float(np.var(entries.score[head])) * (len(entries.start) - 1)
        curvature = [np.array([spread + RIDGE]), mass.distance + RIDGE, *([mass.pair + ridge] if pairs else [])]
        scale = 1.0 / np.sqrt(np.concatenate(curvature))

        def read(x: FloatArray) -> _Parameters:
            y = x * scale
            return _Parameters(float(y[0]), y[1:few], y[few:] if pairs else start.delta)

        def objective(x: FloatArray) -> tuple[float, FloatArray]:
            p = read(x)
            grad_b, grad_delta = np.zeros(BUCKETS), np.zeros_like(p.delta)
            free = p if pairs else _Parameters(p.c, p.b, p.delta[:0])  # as long as pairs are not fitted, theirs are 0
            rows, grad_c = _normalisers(entries, head, free, grad_b, grad_delta)
            value = rows - p.c * mass.score - float(p.b @ mass.distance)
            value += 0.5 * RIDGE * ((p.c - 1.0) ** 2 + float(p.b @ p.b))
            gradient = [np.array([grad_c - mass.score + RIDGE * (p.c - 1.0)]), grad_b - mass.distance + RIDGE * p.b]
            if pairs:
                value += 0.5 * ridge * float(p.delta @ p.delta) - float(p.delta @ mass.pair)
                gradient.append(grad_delta - mass.pair + ridge * p.delta)
            return value, np.concatenate(gradient) * scale

        x0 = np.concatenate([[start.c], start.b, *([start.delta] if pairs else [])]) / scale
        options = {"maxiter": 60, "maxcor": 8, "gtol": self.tol * np.sqrt(len(entries.start)), "ftol": 1e-6}
        return read(minimize(objective, x0, jac=True, method="L-BFGS-B", options=options).x)  # type: ignore[call-overload]

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


def _normalisers(
    entries: Entries, head: int, p: _Parameters, grad_b: FloatArray, grad_delta: FloatArray
) -> tuple[float, float]:
    of_head = entries.score[head], entries.start, entries.bucket, entries.pair
    rows, grad_c = log_normalisers(*of_head, p.c, p.b, p.delta, grad_b, grad_delta)
    return float(rows), float(grad_c)


def _loss(entries: Entries, head: int, mass: _Masses, p: _Parameters) -> float:
    rows, _ = _normalisers(entries, head, p, np.zeros_like(p.b), np.zeros_like(p.delta))
    return rows - p.c * mass.score - float(p.b @ mass.distance + p.delta @ mass.pair)


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
