"""Continuations by a context logit, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.names import Columns
from ccmc._logit.terms import Base


@dataclass(frozen=True, eq=False)
class Law:
    """What is walked: weights [1 + D], of log P0 first, of columns of statistics; see `ContextLogit`."""

    columns: Columns
    weights: FloatArray
    base: Base
    closed: bool
    offset: str


def roll(law: Law, prompts: Sequence[IntArray], steps: int, seed: int, temperature: float | None) -> IntArray:
    """See `ContextLogit.rollout`."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.walk_kernels import walk
    from ccmc._sim.random import name_paths

    columns, base = law.columns, law.base
    levels, slots = columns.levels, columns.slots
    if law.offset == "followed-by-1" and levels[0] != 1:
        levels, slots = np.append(1, levels), slots + 1
    heat = 1.0 if temperature is None else 1.0 / temperature
    w = law.weights * heat
    key = np.random.SeedSequence(seed).generate_state(4, np.uint64).astype(np.uint64)
    called = np.empty((len(prompts), 3), np.uint64)
    name_paths(np.concatenate([*prompts, np.empty(0, np.int64)]), _offsets(prompts), called)
    out = np.empty((len(prompts), steps), np.int64)
    offset = {"none": 0, "counts": 1, "followed-by-1": 2}[law.offset]
    flags = np.array([law.closed, temperature is None, offset], dtype=np.int64)
    sums = np.exp(base.moments(float(w[0]))[:, 0])
    tail = tail_cumulated(base, float(w[0]))
    given = base.factors
    nothing, none = np.zeros((1, 0), np.float32), np.zeros(1)
    hidden, keys = (nothing, nothing) if given is None else (given.hidden, given.keys)
    bias, log_norm = (none, none) if given is None else (given.bias, given.log_norm)
    cap = 0.0 if given is None else float(given.cap)

    def work(paths: IntArray) -> None:
        for path in paths:
            walk(
                prompts[path], key, called[path], columns.kinds, columns.orders, slots, levels, w, heat, flags,
                base.row, base.tokens, base.log_p, base.log_scale, base.log_unigram, sums, base.frequent, tail,
                hidden, keys, bias, log_norm, cap,
                out[path],
            )  # fmt: skip

    run_tasks(work, np.ones(len(prompts)))
    return out


def _offsets(prompts: Sequence[IntArray]) -> IntArray:
    """[n + 1] where prompts begin in their concatenation."""
    return np.concatenate([[0], np.cumsum([len(prompt) for prompt in prompts])]).astype(np.int64)


def tail_cumulated(base: Base, a: float) -> FloatArray:
    """[V] running sums of unigram^a over tokens in order of frequency."""
    found: FloatArray = np.cumsum(np.exp(a * base.log_unigram[base.frequent]))
    return found
