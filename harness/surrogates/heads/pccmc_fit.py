"""`pccmc-fit`: the position-aware chain of the weights, with a fitted scale, distances and effects of tokens on top.

theta = c score read off the weights + a[key's place] + b[distance] + effect[query, key] + delta[query, key] by
position-level maximum likelihood with a ridge towards c = 1 and 0 elsewhere, per head. Place and distance go by
buckets; positions scale transition probabilities where scores do not mix them with tokens. The effect is a level per
key and a bilinear form in what the head makes of the two tokens (`pair_effects`), so that it speaks about pairs that no
text has shown; delta does not. Theta is linear in all of it, so the loss is convex, and sums of attention per pair and
per distance are all that it needs. The weights alone, and steps that free more and more of this, are tried on kept-back
training prompts; each head takes what is best there.

The scores of a layer's training texts are kept while it is fitted. Where they are too many, the fit takes a random part
of the training prompts: long texts then give fewer, and memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Self

import numpy as np
import torch
from scipy import sparse

from harness.attention.blocks import Block, View
from harness.attention.log_weights import LogWeights, on
from harness.attention.loop_terms import LoopTerms, PairTable
from harness.attention.static_inputs import StaticHeads
from harness.core.registry import register
from harness.core.seeds import derive_seed
from harness.data.texts import FloatArray, IntArray
from harness.surrogates._fitting.along import delta_tables, fitted_odds, odds_terms, sink_along
from harness.surrogates._fitting.buckets import BUCKETS, profile_of
from harness.surrogates._fitting.folds import inner_folds
from harness.surrogates._fitting.minimise import minimise_each
from harness.surrogates._fitting.pair_effects import TokenFeatures
from harness.surrogates._fitting.position_loss import Entries, gather, log_normalisers
from harness.surrogates._fitting.sink_fit import SinkFit, fit_sink
from harness.surrogates.base import HeadSurrogate
from harness.surrogates.heads.pccmc_weights import PCCMCWeights
from harness.surrogates.observations import HeadObservations

RIDGE = 1.0  # of scale, places and distances
LEVEL_RIDGE, FORM_RIDGE = 10.0, 2.5  # of a key's level; of the form, per number of it: levels of .3, effects of .6 nats
# what a head may choose besides its weights: a factor of the ridges of effects, and the ridge of pairs
STEPS = ((np.inf, np.inf), (3.0, np.inf), (1.0, np.inf), (1.0, 10.0), (0.1, 1.0))
_NONE, _DISTANCES = -1, 0
FEW = 1 + 2 * BUCKETS  # numbers of scale, places and distances
FALL = 3e-6  # a fit is done where a step gains no more than this share of the loss
MOST_SCORES = 100_000_000  # over heads and pairs of positions; four bytes each are kept while a layer is fitted


@dataclass(frozen=True)
class _Parameters:
    """Scale [A], offsets of places and distances [A, D], effects [A, E] and pair offsets [A, P] of some heads."""

    c: FloatArray
    a: FloatArray
    b: FloatArray
    effects: FloatArray
    delta: FloatArray

    def of(self, heads: IntArray) -> _Parameters:
        return _Parameters(*(part[heads] for part in (self.c, self.a, self.b, self.effects, self.delta)))


@dataclass(frozen=True)
class _Data:
    """What a loss needs of some texts: their entries, and the attention of heads.

    Attributes:
        entries: of the texts.
        query, key: [P] the pairs that co-occur in them.
        score: [H] attention times score; place: [H, D], distance: [H, D] and pair: [H, P] attention.
    """

    entries: Entries
    query: IntArray
    key: IntArray
    score: FloatArray
    place: FloatArray
    distance: FloatArray
    pair: FloatArray

    @classmethod
    def of(cls, heads: StaticHeads, observations: HeadObservations) -> _Data:
        pattern = observations.pattern
        query = np.repeat(np.arange(pattern.shape[0], dtype=np.int64), np.diff(pattern.indptr))
        key = pattern.indices.astype(np.int64)
        codes = query * pattern.shape[0] + key
        return cls(
            gather(heads, observations.texts, codes, observations.vocab_size),
            query,
            key,
            np.sum(observations.score_mass, axis=0),
            np.sum(observations.place_mass, axis=0),
            np.sum(observations.distance_mass, axis=0),
            observations.pair_wins,
        )


def affordable(observations: HeadObservations, seed: int, most: int = MOST_SCORES) -> HeadObservations:
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


@register.surrogate(
    "pccmc-fit",
    of="heads",
    sees=("counts", "query", "distance", "weights"),
    parameters="K(K-1) + 49",
    rung=100,
    default=True,
    needs=("heads",),
    prior="pccmc-weights",
    about="pccmc-weights with a fitted scale, distances and effects of tokens on top",
    cost="grows with the squared length of the training texts",
    source="this project",
)
class PCCMCFit(HeadSurrogate):
    """Position-aware weights with a fitted scale, places, distances and effects of tokens.

    Args:
        heads: the layer's heads, asked per token and position.
        seed: of the inner split.
        folds: one of so many parts of the training prompts is kept back to choose.
        tol: of the fits, on the largest gradient entry in units of its standard deviation.
        threads: that share the heads.
    """

    steps: ClassVar[tuple[tuple[float, float], ...]] = STEPS
    """What is tried beside the weights as they are."""

    choice_: IntArray
    c_: FloatArray
    a_: FloatArray
    b_: FloatArray
    effects_: FloatArray | None = None
    delta_: list[sparse.csr_array]
    sink_: SinkFit | None = None

    def __init__(self, heads: StaticHeads, seed: int, folds: int = 4, tol: float = 1e-3, threads: int = 2) -> None:
        self.heads, self.seed, self.folds, self.tol, self.threads = heads, seed, folds, tol, threads
        self.features = TokenFeatures.of(heads)

    def fit(self, observations: HeadObservations) -> Self:
        if not len(observations.score_mass) == len(observations.place_mass) == len(observations.texts):
            raise ValueError("pccmc-fit needs the score mass and the place mass of every text")
        prior_odds = observations.prior_sink_odds.get(PCCMCWeights.name, ())
        if prior_odds:
            self.sink_ = fit_sink(observations.texts, observations.sink_odds, prior_odds, observations.vocab_size)
        observations = affordable(observations, derive_seed(self.seed, "affordable"))
        groups = inner_folds(observations.groups, self.folds, derive_seed(self.seed, "inner"))
        if len(groups) < 2:
            self.choice_ = np.full(observations.heads, _DISTANCES)
        else:
            inner, outer = observations.part(set(observations.groups) - groups[0]), observations.part(groups[0])
            self.choice_ = self._choose(_Data.of(self.heads, inner), _Data.of(self.heads, outer))
        data = _Data.of(self.heads, observations)
        found = self._final(data)
        size = observations.vocab_size
        self.c_, self.a_, self.b_ = found.c, found.a, found.b
        self.effects_ = found.effects if found.effects.any() else None
        self.delta_ = [sparse.csr_array((delta, (data.query, data.key)), shape=(size, size)) for delta in found.delta]
        for table in self.delta_:
            table.eliminate_zeros()  # of heads that choose none
        return self

    def _start(self, data: _Data) -> _Parameters:
        heads = len(data.pair)
        effects = np.zeros((heads, self.features.size))
        buckets = np.zeros((2, heads, BUCKETS))
        return _Parameters(np.ones(heads), buckets[0], buckets[1], effects, np.zeros_like(data.pair))

    def _choose(self, inner: _Data, outer: _Data) -> IntArray:
        """[H] the choice that is best on the prompts kept back."""
        found = self._start(inner)
        heads, size = np.arange(len(inner.pair)), self.features.shape[0]
        known, wanted = inner.query * size + inner.key, outer.query * size + outer.key
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        met = known[place] == wanted

        def loss() -> FloatArray:
            delta = np.where(met, found.delta[:, place], 0.0)
            return self._value(outer, heads, replace(found, delta=delta), True)[0]

        losses = [loss()]
        for effects, pairs in self.steps:
            found = self._solve(inner, heads, np.full(len(heads), effects), np.full(len(heads), pairs), found)
            losses.append(loss())
        choice: IntArray = np.argmin(losses, axis=0) + _NONE
        return choice

    def _final(self, data: _Data) -> _Parameters:
        """The parameters of each head's choice, from all texts."""
        found, ridges = self._start(data), np.array(STEPS)
        first = np.where(self.choice_ > _DISTANCES, _DISTANCES, self.choice_)
        for choice, free in ((first, 0), (self.choice_, 1), (self.choice_, 2)):
            # the sets of numbers that are free: those of distances, of effects too, of pairs too
            wanted = (choice > _NONE) & (np.isfinite(ridges[np.maximum(choice, 0)]).sum(1) == free)
            heads = np.flatnonzero(wanted)
            if len(heads):
                effects, pairs = ridges[choice[heads]].T
                solved = self._solve(data, heads, effects, pairs, found.of(heads))
                found.c[heads], found.a[heads], found.b[heads] = solved.c, solved.a, solved.b
                found.effects[heads], found.delta[heads] = solved.effects, solved.delta
        return found

    def _solve(
        self, data: _Data, heads: IntArray, effects: FloatArray, pairs: FloatArray, start: _Parameters
    ) -> _Parameters:
        """Minimise over c, a and b, and over effects and delta too where their ridges are not infinite.

        Args:
            data: of the texts.
            heads: [A] which.
            effects: [A] by how much the ridges of effects are multiplied; infinite for all heads or for none.
            pairs: [A] ridge of delta; infinite for all heads or for none.
            start: of these heads.
        """
        rows, tokens = len(data.entries.start) - 1, self.features.shape[0]
        ridge = [np.full((len(heads), FEW), RIDGE)]
        # in units in which the curvature of every parameter is of order 1
        spread = np.array([np.var(data.entries.score[head]) for head in heads]) * rows
        curvature, x0 = (
            [spread[:, None], data.place[heads], data.distance[heads]],
            [start.c[:, None], start.a, start.b],
        )
        if np.isfinite(effects[0]):
            strength = np.full(self.features.size, FORM_RIDGE * (self.features.size - tokens))
            strength[:tokens] = LEVEL_RIDGE
            ridge.append(effects[:, None] * strength)
            of_form = np.full((len(heads), self.features.size - tokens), float(rows))
            of_key = np.stack([np.bincount(data.key, weights=data.pair[h], minlength=tokens) for h in heads])
            curvature += [of_key, of_form]
            x0.append(start.effects)
        if np.isfinite(pairs[0]):
            ridge.append(np.broadcast_to(pairs[:, None], start.delta.shape))
            curvature.append(data.pair[heads])
            x0.append(start.delta)
        weight = np.concatenate(ridge, axis=1)
        scale = 1.0 / np.sqrt(np.concatenate(curvature, axis=1) + weight)
        centre = np.zeros(weight.shape[1])
        centre[0] = 1.0  # c is pulled to 1, all else to 0

        def objective(which: IntArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
            y = x * scale[which]
            value, gradient = self._value(data, heads[which], self._read(y), False)
            for row, number in enumerate(which):
                off = y[row] - centre
                pull = weight[number] * off
                value[row] += 0.5 * float(pull @ off)
                gradient[row] = (gradient[row] + pull) * scale[number]
            return value, gradient

        tol = self.tol * np.sqrt(rows + 1)
        y = minimise_each(objective, np.concatenate(x0, axis=1) / scale, tol, fall=FALL, most=60) * scale
        found = self._read(y)
        effects_kept = found.effects if found.effects.shape[1] else start.effects
        return replace(found, effects=effects_kept, delta=found.delta if found.delta.shape[1] else start.delta)

    def _read(self, y: FloatArray) -> _Parameters:
        """Take numbers [A, ...] apart; effects and pairs may be missing at the end."""
        after = FEW + (self.features.size if y.shape[1] > FEW else 0)
        places = slice(1, 1 + BUCKETS), slice(1 + BUCKETS, FEW), slice(FEW, after), slice(after, None)
        return _Parameters(y[:, 0].copy(), *(y[:, place] for place in places))

    def _value(self, data: _Data, heads: IntArray, p: _Parameters, only: bool) -> tuple[FloatArray, FloatArray]:
        """[A] losses without ridges, and [A, ...] their gradients in the order of `_read`; of nothing if `only`."""
        of_effects = p.effects.shape[1]
        size = 0 if only else FEW + of_effects + p.delta.shape[1]
        value, gradient = np.zeros(len(heads)), np.zeros((len(heads), size))
        parts = np.array_split(np.arange(len(heads)), min(self.threads, len(heads)))

        def work(part: IntArray) -> None:
            table = np.zeros((len(part), len(data.query) if of_effects else 0))
            for row, a in enumerate(part.tolist()):
                if of_effects:
                    table[row] = self.features.effect(heads[a], p.effects[a], data.query, data.key)
                if p.delta.shape[1]:
                    table[row] += p.delta[a]
            (total, of_c), of_table = np.zeros((2, len(part))), np.zeros_like(table)
            of_a, of_b = np.zeros((2, len(part), BUCKETS))
            entries, which = data.entries, heads[part]
            log_normalisers(
                entries.score, entries.start, entries.place, entries.bucket, entries.pair,
                which, p.c[part], p.a[part], p.b[part], table, total, of_c, of_a, of_b, of_table,
            )  # fmt: skip
            value[part] = total - p.c[part] * data.score[which]
            value[part] -= (p.a[part] * data.place[which]).sum(1) + (p.b[part] * data.distance[which]).sum(1)
            for row, a in enumerate(part.tolist()):
                head, won = heads[a], data.pair[heads[a]]
                if of_effects:
                    value[a] -= float(table[row] @ won)
                if only:
                    continue
                gradient[a, 0] = of_c[row] - data.score[head]
                gradient[a, 1 : 1 + BUCKETS] = of_a[row] - data.place[head]
                gradient[a, 1 + BUCKETS : FEW] = of_b[row] - data.distance[head]
                if of_effects:
                    of_table[row] -= won
                    moved = self.features.gradient(head, of_table[row], data.query, data.key)
                    gradient[a, FEW : FEW + of_effects] = moved
                if p.delta.shape[1]:
                    gradient[a, FEW + of_effects :] = of_table[row]

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, parts))
        return value, gradient

    def loop_terms(self) -> LoopTerms:
        return LoopTerms(
            self.heads,
            "placed",
            "placed",
            scale=self.c_,
            profile=partial(profile_of, self.b_),
            place=partial(profile_of, self.a_),
            pairs=PairTable.of(self.delta_),
            form=None if self.effects_ is None else self.features.form(self.effects_),
            **odds_terms(self.sink_),
        )

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        prior = PCCMCWeights(self.heads).along(view)
        place, profile = (on(view, profile_of(part, view.length)) for part in (self.a_, self.b_))
        change, c = delta_tables(self.delta_, view), on(view, self.c_)
        if self.effects_ is not None:
            types = view.types.cpu().numpy()
            for head, effects in enumerate(self.effects_):
                change[head] += on(view, self.features.table(head, effects, types))
        sink = sink_along(self.sink_, view)

        def of(block: Block) -> LogWeights:
            given = prior(block)
            odds = fitted_odds(sink, given, block)
            part = block.heads
            parts = {"scale": c[part], "profile": profile[part], "place": place[part], "change": change[part]}
            return LogWeights(given.values, by_token=False, sink_odds=odds, **parts)

        return of

    @property
    def device(self) -> torch.device:
        return self.heads.at_start.key.device
