"""The random numbers that continuations are drawn with: those of each (prompt, seed, step), whatever else is there."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def uniforms(
    seed: int, prompt: Sequence[int] | np.ndarray[Any, Any], steps: int, each: int = 1, occurrence: int = 0
) -> np.ndarray[Any, Any]:
    """The numbers that decide the tokens of one continuation.

    They depend on the seed and on the ids of the prompt, and on nothing else: not on the other prompts, their order or
    the batch. Two prompts with the same ids get the same numbers, unless `occurrence` tells them apart. The key of a
    counter-based generator is a hash of both, and the step is its counter: a longer continuation goes on with the
    numbers of a shorter one.

    Args:
        seed: of the samples.
        prompt: [L] token ids that do not depend on the other prompts: those of the model, not local ones.
        steps: how many tokens will be drawn.
        each: how many numbers a step takes.
        occurrence: how many equal prompts came before, where each should have numbers of its own.

    Returns:
        float64 [steps, each] in [0, 1).

    Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3 (Philox).
    """
    ids = np.asarray(prompt, dtype="<i8")
    number = f"\0{occurrence}" if occurrence else ""
    digest = hashlib.sha256(f"{seed}\0{len(ids)}\0".encode() + ids.tobytes() + number.encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random((steps, each))


def uniforms_of_each(
    seed: int, prompts: Sequence[np.ndarray[Any, Any]], steps: int, each: int = 1
) -> Iterator[np.ndarray[Any, Any]]:
    """`uniforms` of one prompt after the other; equal ones get numbers of their own, by how many came before."""
    met: Counter[bytes] = Counter()
    for prompt in prompts:
        key = np.asarray(prompt, dtype="<i8").tobytes()
        yield uniforms(seed, prompt, steps, each, met[key])
        met[key] += 1
