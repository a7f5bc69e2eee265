"""Continuations by a context logit, token by token."""

from __future__ import annotations

import hashlib
from collections import Counter
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


def streams(prompts: Sequence[IntArray], seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """[n, 4] state of a random stream for each prompt: of its tokens, its number among equal prompts, and the seed."""
    met: Counter[bytes] = Counter()
    made = np.empty((len(prompts), 4), np.uint64)
    for index, prompt in enumerate(prompts):
        content = np.ascontiguousarray(prompt, dtype="<i8").tobytes()
        key = hashlib.blake2b(content, digest_size=32, salt=b"ccmc-walk", key=f"{seed} {met[content]}".encode())
        met[content] += 1
        made[index] = np.frombuffer(key.digest(), dtype="<u8")
    return made


def roll(law: Law, prompts: Sequence[IntArray], steps: int, seed: int, temperature: float | None) -> IntArray:
    """See `ContextLogit.rollout`."""
    from ccmc._data.compiled import run_tasks
    from ccmc._logit.walk_kernels import walk

    columns, base = law.columns, law.base
    levels, slots = columns.levels, columns.slots
    if law.offset == "followed-by-1" and levels[0] != 1:
        levels, slots = np.append(1, levels), slots + 1
    heat = 1.0 if temperature is None else 1.0 / temperature
    w = law.weights * heat
    states = streams(prompts, seed)
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
                prompts[path], states[path], columns.kinds, columns.orders, slots, levels, w, heat, flags,
                base.row, base.tokens, base.log_p, base.log_scale, base.log_unigram, sums, base.frequent, tail,
                hidden, keys, bias, log_norm, cap,
                out[path],
            )  # fmt: skip

    run_tasks(work, np.ones(len(prompts)))
    return out


def tail_cumulated(base: Base, a: float) -> FloatArray:
    """[V] running sums of unigram^a over tokens in order of frequency."""
    found: FloatArray = np.cumsum(np.exp(a * base.log_unigram[base.frequent]))
    return found
