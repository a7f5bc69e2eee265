"""Continuations by a context logit, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.names import KINDS, Columns
from ccmc._logit.terms import Base

if TYPE_CHECKING:
    from ccmc._logit.walk_arrays import BaseArrays, LawArrays

PATHS = 128  # paths of one prompt that one task takes
_ALONE = ("present", "log-count", "recency", "recency-squared", "recent", "unigram", "similarity", "base-inside")


class Law:
    """What is walked, as kernels need it: weights [1 + D], of log P0 first, of columns of statistics.

    Args:
        columns, weights, base: of the model.
        closed, offset: as of `ContextLogit`.
        temperature: utilities are divided by it; None: the likeliest token.
    """

    def __init__(
        self, columns: Columns, weights: FloatArray, base: Base, closed: bool, offset: str, temperature: float | None
    ) -> None:
        self.columns, self.closed, self.base = columns, closed, _arrays_of(base)
        self.heat, self.greedy = 1.0 if temperature is None else 1.0 / temperature, temperature is None
        self.offset = {"none": 0, "counts": 1, "followed-by-1": 2}[offset]
        self.w = weights * self.heat
        a = float(self.w[0])
        self.sums = np.exp(base.moments(a)[:, 0])
        self.cumulated = np.cumsum(np.exp(a * base.log_p) if a else np.ones(base.log_p.shape), axis=1)
        self.tail = tail_cumulated(base, a)

    def arrays(self, size: int) -> LawArrays:
        """For contexts of up to `size` tokens."""
        from ccmc._logit.walk_arrays import LawArrays

        columns, w = self.columns, self.w[1:]
        levels, slots = columns.levels, columns.slots
        if self.offset == 2 and levels[0] != 1:
            levels, slots = np.append(1, levels), slots + 1
        of = {name: float(w[columns.kinds == KINDS[name]].sum()) for name in _ALONE}
        passed = np.arange(size + 1, dtype=np.float64)
        log = np.log(np.maximum(passed, 1))
        aged, recent = of["recency"] * log + of["recency-squared"] * log**2, np.zeros(len(levels))
        for d in np.flatnonzero(columns.kinds == KINDS["recent"]):
            recent[slots[d]] += w[d]
            aged -= w[d] * (passed - 1) / float(columns.orders[d])
        own = (w != 0.0) & ~np.isin(columns.kinds, [KINDS[name] for name in _ALONE])
        log_count = of["log-count"] + (self.heat if self.offset == 1 else 0.0)
        return LawArrays(
            int(self.closed), int(self.greedy), self.offset, self.heat, float(self.w[0]),
            float(self.w[0]) + of["base-inside"], of["present"], log_count,
            of["unigram"], of["similarity"], recent, levels, columns.kinds[own], slots[own], w[own], aged, self.sums,
            self.cumulated, self.tail,
        )  # fmt: skip


def _arrays_of(base: Base) -> BaseArrays:
    from ccmc._logit.walk_arrays import BaseArrays

    given, nothing, none = base.factors, np.zeros((1, 0), np.float32), np.zeros(1)
    return BaseArrays(
        base.row, base.tokens, base.log_p, base.log_scale, base.log_unigram, base.frequent,
        nothing if given is None else given.hidden, nothing if given is None else given.keys,
        none if given is None else given.bias, none if given is None else given.log_norm,
        0.0 if given is None else float(given.cap),
    )  # fmt: skip


def roll(law: Law, prompts: Sequence[IntArray], steps: int, seed: int) -> IntArray:
    """See `ContextLogit.rollout`."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.walk_kernels import walks
    from ccmc._sim.random import name_paths

    key = np.random.SeedSequence(seed).generate_state(4, np.uint64).astype(np.uint64)
    called = np.empty((len(prompts), 3), np.uint64)
    name_paths(np.concatenate([*prompts, np.empty(0, np.int64)]), _offsets(prompts), called)
    out = np.empty((len(prompts), steps), np.int64)
    edges = _runs(called)
    arrays = law.arrays(max((len(prompt) for prompt in prompts), default=0) + steps)

    def work(tasks: IntArray) -> None:
        for k in tasks:
            own = slice(edges[k], edges[k + 1])
            walks(prompts[edges[k]], key, called[own], arrays, law.base, out[own])

    run_tasks(work, np.diff(edges).astype(np.float64))
    return out


def roll_regimes(
    columns: Columns, weights: Sequence[FloatArray], base: Base, transition: FloatArray, first: FloatArray,
    prompts: Sequence[IntArray], steps: int, seed: int,
) -> IntArray:  # fmt: skip
    """See `RegimeLogit.rollout`; `first` [n, 2] are the states after the prompts."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.regime_kernels import walk_regimes
    from ccmc._sim.random import name_paths

    key = np.random.SeedSequence(seed).generate_state(4, np.uint64).astype(np.uint64)
    called = np.empty((len(prompts), 3), np.uint64)
    name_paths(np.concatenate([*prompts, np.empty(0, np.int64)]), _offsets(prompts), called)
    out = np.empty((len(prompts), steps), np.int64)
    one, two = (Law(columns, vector, base, False, "none", 1.0) for vector in weights)
    size = max((len(prompt) for prompt in prompts), default=0) + steps
    arrays = one.arrays(size), two.arrays(size)

    def work(tasks: IntArray) -> None:
        for k in tasks:
            walk_regimes(prompts[k], key, called[k], *arrays, one.base, transition, first[k], out[k])

    run_tasks(work, np.ones(len(prompts)))
    return out


def _runs(called: np.ndarray[tuple[int, int], np.dtype[np.uint64]]) -> list[int]:
    """Where runs of equal prompts begin, none longer than `PATHS`; last how many prompts there are."""
    edges = [0] if len(called) else []
    for path in range(1, len(called)):
        if (called[path, :2] != called[path - 1, :2]).any() or path - edges[-1] >= PATHS:
            edges.append(path)
    return [*edges, len(called)]


def _offsets(prompts: Sequence[IntArray]) -> IntArray:
    """[n + 1] where prompts begin in their concatenation."""
    return np.concatenate([[0], np.cumsum([len(prompt) for prompt in prompts])]).astype(np.int64)


def tail_cumulated(base: Base, a: float) -> FloatArray:
    """[V] running sums of unigram^a over tokens in order of frequency."""
    found: FloatArray = np.cumsum(np.exp(a * base.log_unigram[base.frequent]))
    return found
