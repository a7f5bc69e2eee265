"""`suffix`: induction of any order, what followed the longest earlier match of the end of the context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.core.registry import register
from harness.data.texts import FloatArray, IntArray
from harness.surrogates._fitting.mixing import counts_along, mixed, mixture_weights, roll, tempered
from harness.surrogates.base import Fact
from harness.surrogates.vocabulary_base import Along, ScoredText, VocabularyObservations, VocabularySurrogate

LENGTHS = (1, 2, 3, 4, 6, 9, 16)
"""Matches of at least so many tokens, up to the next, share a weight."""


@register.surrogate(
    "suffix",
    of="vocabulary",
    sees=("order",),
    parameters="3 a length of matches",
    rollout=True,
    open=True,
    rung=60,
    about="what followed the longest earlier match of the end of the context, backed off to cache and unigram",
    cost="seconds",
    source="Liu et al. 2024, Infini-gram, inside one context; the weights are this project's",
)
class Suffix(VocabularySurrogate):
    """Three parts, whose weights depend on the length of the match: followers of the longest match, cache, unigram."""

    def fit(self, observations: VocabularyObservations) -> Suffix:
        self.unigram_ = observations.unigram
        found = [self._parts(text) for text in observations.texts]
        place = np.concatenate([bucket for bucket, _, _, _ in found])
        parts = np.concatenate([came for _, _, _, came in found])
        self.weights_ = np.zeros((len(LENGTHS) + 1, 3))
        for bucket in range(len(self.weights_)):
            seen = parts[place == bucket]
            of = [1, 2] if bucket == 0 else [0, 1, 2]
            self.weights_[bucket, of] = mixture_weights(seen[:, of]) if len(seen) else 1.0 / len(of)
        return self

    def _parts(self, text: ScoredText) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
        """[n] bucket of the match, [n, U] shares of its followers and of the cache, [n, 3] what came in each part."""
        counts = counts_along(text)
        cache = counts / counts.sum(axis=1, keepdims=True)
        tokens = text.numbered.local
        length, after = np.zeros(len(text), dtype=np.int64), np.zeros_like(cache)
        match = np.zeros(len(tokens), dtype=np.int64)
        for n in range(1, len(tokens)):  # n tokens so far
            match = _matches(tokens[:n], match)
            row = n - text.start
            if row >= 0 and (best := int(match[: n - 1].max(initial=0))):
                length[row] = best
                np.add.at(after[row], tokens[np.flatnonzero(match[: n - 1] == best) + 1], 1.0)
        after /= np.maximum(after.sum(axis=1, keepdims=True), 1.0)
        came = np.arange(len(text)), text.numbered.local[text.start :]
        unigram = self.unigram_[text.tokens[text.start :]]
        return _bucket(length), after, cache, np.column_stack([after[came], cache[came], unigram])

    def along(self, text: ScoredText) -> Along:
        bucket, after, cache, came = self._parts(text)
        weight = self.weights_[bucket]
        inside = weight[:, :1] * after + weight[:, 1:2] * cache + weight[:, 2:] * self.unigram_[text.numbered.types]
        return mixed(np.where(text.known, inside, 0.0), (came * weight).sum(axis=1))

    def rollout(self, prompts: Sequence[IntArray], steps: int, seed: int, temperature: float | None = 1.0) -> IntArray:
        cumulative = np.cumsum(self.unigram_)
        state: dict[str, IntArray] = {}

        def follow(text: list[int]) -> tuple[FloatArray, IntArray]:
            """Weights of the three parts, and the followers of the longest match."""
            tokens = np.asarray(text)
            if not np.array_equal(state.get("tokens", tokens), tokens[:-1]):  # another text
                if not np.array_equal(state.get("first", tokens[:0]), tokens):  # walks of one prompt start alike
                    state["first"], state["of_first"] = tokens, _matches_of(tokens)
                match = state["of_first"]
            else:
                match = _matches(tokens, np.append(state["match"], 0))
            state["tokens"], state["match"] = tokens, match
            best = int(match[:-1].max(initial=0))
            after = tokens[np.flatnonzero(match[:-1] == best) + 1] if best else tokens[:0]
            return self.weights_[int(_bucket(np.array([best]))[0])], after

        def draw(text: list[int], number: FloatArray) -> int:
            weight, after = follow(text)
            if temperature != 1.0:
                p = weight[2] * self.unigram_ + weight[1] * np.bincount(text, minlength=len(cumulative)) / len(text)
                if len(after):
                    p += weight[0] * np.bincount(after, minlength=len(cumulative)) / len(after)
                p = tempered(p, temperature)
                return int(min(np.searchsorted(np.cumsum(p), number[1], side="right"), len(p) - 1))
            if number[0] < weight[0] and len(after):
                return int(after[int(number[1] * len(after))])
            if number[0] < weight[0] + weight[1]:
                return text[int(number[1] * len(text))]
            return int(min(np.searchsorted(cumulative, number[1] * cumulative[-1], side="right"), len(cumulative) - 1))

        return roll(prompts, steps, seed, draw)

    def reader(self) -> SuffixReader:
        return SuffixReader(self.unigram_, self.weights_)

    def extra_rows(self) -> list[Fact]:
        names = ["0", *(str(length) for length in LENGTHS)]
        return [
            Fact("weight", float(self.weights_[row, part]), {"condition": {"weight": f"{name} after {at}"}})
            for row, at in enumerate(names)
            for part, name in enumerate(("followers", "cache", "unigram"))
        ]


class SuffixReader:
    """A growing context under `suffix`: tokens in, log laws of the next one out.

    Args:
        unigram: [V].
        weights: [lengths, 3] of followers, cache and unigram.
    """

    def __init__(self, unigram: FloatArray, weights: FloatArray) -> None:
        self.unigram, self.weights = unigram, weights
        self.tokens = self.match = np.empty(0, dtype=np.int64)
        self.counts = np.zeros(len(unigram))

    def __len__(self) -> int:
        return len(self.tokens)

    def copy(self) -> SuffixReader:
        """A reader of the same context that goes its own way."""
        other = SuffixReader(self.unigram, self.weights)
        other.tokens, other.match, other.counts = self.tokens, self.match, self.counts.copy()
        return other

    def read(self, tokens: Any, laws: int = 1) -> FloatArray:
        """Read tokens [n], and give the log law [laws, V] after each of the last ones."""
        given = np.atleast_1d(np.asarray(tokens, dtype=np.int64))
        found = np.empty((laws, len(self.unigram)))
        for place, token in enumerate(given.tolist()):
            self.tokens = np.append(self.tokens, token)
            self.match = _matches(self.tokens, np.append(self.match, 0))
            self.counts[token] += 1
            if (row := place - (len(given) - laws)) >= 0:
                found[row] = self._law()
        return found

    def _law(self) -> FloatArray:
        best = int(self.match[:-1].max(initial=0))
        weight = self.weights[int(_bucket(np.array([best]))[0])]
        p = weight[2] * self.unigram + weight[1] * self.counts / len(self.tokens)
        if best:
            after = self.tokens[np.flatnonzero(self.match[:-1] == best) + 1]
            p += weight[0] * np.bincount(after, minlength=len(p)) / len(after)
        with np.errstate(divide="ignore"):
            log: FloatArray = np.log(p)
        return log


def _matches(tokens: IntArray, before: IntArray) -> IntArray:
    """[n] length of the longest match of the end of n tokens that ends at each earlier place, from those of n - 1."""
    n = len(tokens)
    shifted = np.zeros(n, dtype=np.int64)
    shifted[1:] = before[: n - 1]
    match: IntArray = np.where(tokens == tokens[-1], shifted + 1, 0)
    match[n - 1] = 0
    return match


def _matches_of(tokens: IntArray) -> IntArray:
    """[n] the same from the beginning."""
    match = np.zeros(len(tokens), dtype=np.int64)
    for n in range(1, len(tokens) + 1):
        match[:n] = _matches(tokens[:n], match[:n])
    return match


def _bucket(length: IntArray) -> IntArray:
    """[n] 0 without a match, then the place of its length among LENGTHS, from 1."""
    place: IntArray = np.searchsorted(np.array(LENGTHS), length, side="right").astype(np.int64)
    return place
