"""`unigram-cache`: training frequencies mixed with the frequencies of the context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.core.registry import register
from harness.data.texts import FloatArray, IntArray
from harness.surrogates._fitting.mixing import counts_along, mixed, mixture_weights, roll, tempered
from harness.surrogates.base import Fact
from harness.surrogates.vocabulary.suffix import LENGTHS, SuffixReader
from harness.surrogates.vocabulary_base import Along, ScoredText, VocabularyObservations, VocabularySurrogate


@register.surrogate(
    "unigram-cache",
    of="vocabulary",
    sees=("counts",),
    parameters="V",
    rollout=True,
    open=True,
    control=True,
    rung=6,
    about="training frequencies mixed with the frequencies of the context",
    cost="nothing",
    source="Kuhn and De Mori 1990, A cache-based natural language model for speech recognition",
)
class UnigramCache(VocabularySurrogate):
    """The share of the cache by maximum likelihood of the tokens that came."""

    def fit(self, observations: VocabularyObservations) -> UnigramCache:
        self.unigram_ = observations.unigram
        parts = np.concatenate([self._parts(text)[1] for text in observations.texts])
        self.share_ = float(mixture_weights(parts)[0])
        self.cumulative_ = np.cumsum(self.unigram_)
        return self

    def _parts(self, text: ScoredText) -> tuple[FloatArray, FloatArray]:
        """[n, U] shares of the context, and [n, 2] what cache and unigram give to the token that came."""
        counts = counts_along(text)
        cache = counts / counts.sum(axis=1, keepdims=True)
        came = cache[np.arange(len(cache)), text.numbered.local[text.start :]]
        return cache, np.column_stack([came, self.unigram_[text.tokens[text.start :]]])

    def along(self, text: ScoredText) -> Along:
        cache, came = self._parts(text)
        inside = self.share_ * cache + (1 - self.share_) * self.unigram_[text.numbered.types]
        weight = np.array([self.share_, 1 - self.share_])
        return mixed(np.where(text.known, inside, 0.0), came @ weight)

    def rollout(self, prompts: Sequence[IntArray], steps: int, seed: int, temperature: float | None = 1.0) -> IntArray:
        def draw(text: list[int], number: FloatArray) -> int:
            if number[0] < self.share_:
                return text[int(number[1] * len(text))]
            place = np.searchsorted(self.cumulative_, number[1] * self.cumulative_[-1], side="right")
            return int(min(place, len(self.cumulative_) - 1))

        def heated(text: list[int], number: FloatArray) -> int:
            p = (1 - self.share_) * self.unigram_
            p += self.share_ * np.bincount(text, minlength=len(p)) / len(text)
            p = tempered(p, temperature)
            return int(min(np.searchsorted(np.cumsum(p), number[1], side="right"), len(p) - 1))

        return roll(prompts, steps, seed, draw if temperature == 1.0 else heated)

    def reader(self) -> SuffixReader:
        weight = np.array([0.0, self.share_, 1 - self.share_])  # whatever the match
        return SuffixReader(self.unigram_, np.tile(weight, (len(LENGTHS) + 1, 1)))

    def extra_rows(self) -> list[Fact]:
        return [Fact("weight", self.share_, {"condition": {"weight": "cache"}})]
