"""Mixtures over the whole vocabulary: shares of what a context offers, and a unigram for all other tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from harness.core.noise import uniforms_of_each
from harness.data.texts import FloatArray, IntArray
from harness.surrogates.vocabulary_base import Along, ScoredText

ROUNDS, SMALL = 5000, 1e-10


def mixture_weights(parts: FloatArray) -> FloatArray:
    """[M] weights of a mixture that make the parts [n, M] (what each gives to what came) likeliest, by EM.

    Raises:
        ValueError: something came to which no part gives anything.
    """
    if not (parts.sum(axis=1) > 0).all():
        raise ValueError(
            f"observation {int(np.argmin(parts.sum(axis=1)))} has probability 0 in every part of a mixture"
        )
    weight: FloatArray = np.full(parts.shape[1], 1.0 / parts.shape[1])
    for _ in range(ROUNDS):
        share = parts * weight
        new: FloatArray = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(new - weight).max() < SMALL:
            return new
        weight = new
    return weight


def counts_along(text: ScoredText) -> FloatArray:
    """[n, U] how often each type has come so far."""
    size, types = len(text.tokens), len(text.numbered.types)
    once = np.zeros((size, types))
    once[np.arange(size), text.numbered.local] = 1.0
    counts: FloatArray = once.cumsum(axis=0)[text.start - 1 : -1]
    return counts


def mixed(inside: FloatArray, came: FloatArray) -> Along:
    """What a mixture gives: probabilities [n, U] of the types of contexts, and [n] of the token that came."""
    with np.errstate(divide="ignore"):
        return Along(np.log(inside), np.log(came))


def tempered(p: FloatArray, temperature: float | None) -> FloatArray:
    """[V] p ** (1 / temperature), normalised; None puts all on the likeliest."""
    if temperature is None:
        best = np.zeros_like(p)
        best[int(np.argmax(p))] = 1.0
        return best
    with np.errstate(divide="ignore"):
        log = np.log(p) / temperature
    weight: FloatArray = np.exp(log - log.max())
    weight /= weight.sum()
    return weight


def roll(prompts: Sequence[IntArray], steps: int, seed: int, draw: Callable[[list[int], FloatArray], int]) -> IntArray:
    """Continue prompts [n, steps]: `draw` takes the tokens so far and four uniform numbers and gives the next token."""
    out = np.empty((len(prompts), steps), dtype=np.int64)
    of_each = uniforms_of_each(seed, prompts, steps, each=4)
    for index, (prompt, numbers) in enumerate(zip(prompts, of_each, strict=True)):
        text = np.asarray(prompt).tolist()
        for step in range(steps):
            text.append(draw(text, numbers[step]))
        out[index] = text[len(prompt) :]
    return out
