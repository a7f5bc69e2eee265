"""How a next token is chosen from a surrogate's distribution: the strategies of `generate`, on probabilities.

Temperature and cuts act on the surrogate's distribution as they act on the model's. The repetition penalty multiplies
log-probabilities, which is what it does to negative logits and in beam search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Follow = Callable[[FloatArray, IntArray], FloatArray]


@dataclass(frozen=True, slots=True)
class Decoding:
    """A strategy: temperature None takes the most likely token; what is None is off."""

    temperature: float | None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    beams: int | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram: int | None = None

    @classmethod
    def of(cls, temperature: float | None, options: Mapping[str, Any]) -> Decoding:
        """The strategy of a unit's settings."""
        return cls(temperature, **options)

    def penalised(self, probability: FloatArray, history: IntArray) -> FloatArray:
        """Hold back tokens of the history: [U] unnormalised; as it was where no penalty is on.

        Args:
            probability: [U].
            history: [t] columns of the tokens so far, prompt included.
        """
        if self.repetition_penalty is None and self.no_repeat_ngram is None:
            return probability
        changed = probability.copy()
        if self.repetition_penalty is not None:
            seen = np.unique(history)
            changed[seen] = changed[seen] ** self.repetition_penalty
        if self.no_repeat_ngram is not None:
            changed[followers_of_tail(history, self.no_repeat_ngram - 1)] = 0.0
        return changed if changed.any() else probability  # everything is banned: nothing is

    def cut(self, probability: FloatArray) -> FloatArray:
        """Apply top_k, top_p and min_p in this order: [U] unnormalised, 0 where cut off; never everything."""
        if self.top_k is not None and self.top_k < len(probability):
            least = np.partition(probability, -self.top_k)[-self.top_k]
            probability = np.where(probability < least, 0.0, probability)
        if self.top_p is not None:
            order = np.argsort(-probability, kind="stable")
            sorted_ = probability[order] / probability.sum()
            before = np.cumsum(sorted_) - sorted_
            probability = probability.copy()
            probability[order[1:][before[1:] >= self.top_p]] = 0.0
        if self.min_p is not None:
            probability = np.where(probability < self.min_p * probability.max(), 0.0, probability)
        return probability

    def choose(self, probability: FloatArray, last_seen: IntArray, uniform: float) -> int:
        """Choose one index.

        Args:
            probability: [U], after penalties.
            last_seen: [U] last position of each token; greedy ties go to the most recent, then to the lowest index.
            uniform: a number in [0, 1) that decides a sample.
        """
        if self.temperature is None:
            best = np.flatnonzero(probability >= probability.max() * (1 - 1e-12))
            return int(best[np.argmax(last_seen[best])])
        if self.temperature != 1.0:
            with np.errstate(divide="ignore"):
                log = np.log(probability) / self.temperature
            probability = np.exp(log - log.max())
        cumulative = np.cumsum(self.cut(probability))
        return int(min(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"), len(probability) - 1))


def followers_of_tail(history: IntArray, length: int) -> IntArray:
    """What came after each earlier occurrence of the last `length` tokens of a history, in order of time."""
    if len(history) <= length:
        return history[:0]
    match = np.ones(len(history) - length, dtype=bool)
    for back in range(1, length + 1):
        match &= history[length - back : len(history) - back] == history[-back]
    return history[length:][match]


def continue_one(follow: Follow, prompt: IntArray, size: int, uniforms: FloatArray, decoding: Decoding) -> IntArray:
    """Continue one prompt: [len(uniforms)] columns.

    Args:
        follow: (counts [size], history [t]) -> distribution [size] of the next token.
        prompt: [L] columns.
        size: number of columns.
        uniforms: one number in [0, 1) for each step.
        decoding: the strategy.
    """
    steps, length = len(uniforms), len(prompt)
    counts = np.bincount(prompt, minlength=size).astype(float)
    if decoding.beams is not None:
        return _beam_search(follow, prompt, counts, steps, decoding)
    history = np.concatenate([prompt, np.zeros(steps, dtype=np.int64)])
    last_seen = np.full(size, -1, dtype=np.int64)
    last_seen[prompt] = np.arange(length)  # the last assignment of a repeated index stands
    for step, uniform in enumerate(uniforms, start=length):
        probability = decoding.penalised(follow(counts, history[:step]), history[:step])
        column = decoding.choose(probability, last_seen, float(uniform))
        history[step], last_seen[column] = column, step
        counts[column] += 1.0
    return history[length:]


def _beam_search(follow: Follow, prompt: IntArray, counts: FloatArray, steps: int, decoding: Decoding) -> IntArray:
    """The likeliest of the sequences that stay among the best `beams` of their length all the way."""
    assert decoding.beams is not None
    alive = [(0.0, prompt, counts)]
    for _ in range(steps):
        scores = []
        for total, history, seen in alive:
            with np.errstate(divide="ignore"):
                scores.append(total + np.log(decoding.penalised(follow(seen, history), history)))
        flat = np.concatenate(scores)
        best = np.argsort(-flat, kind="stable")[: decoding.beams]
        grown = []
        for place in best[np.isfinite(flat[best])]:
            which, column = divmod(int(place), len(counts))
            _, history, seen = alive[which]
            more = seen.copy()
            more[column] += 1.0
            grown.append((float(flat[place]), np.append(history, column), more))
        alive = grown
    return alive[0][1][len(prompt) :]
