"""`unigram`: frequencies of tokens in training texts, whatever the context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccmc import BaseTransition, ContextLogit
from harness.core.registry import register
from harness.data.texts import IntArray
from harness.surrogates.vocabulary_base import Along, ScoredText, VocabularyObservations, VocabularySurrogate


@register.surrogate(
    "unigram",
    of="vocabulary",
    sees=(),
    parameters="V",
    rollout=True,
    open=True,
    control=True,
    rung=5,
    about="frequencies of tokens in training texts, whatever the context",
    cost="nothing",
    source="this project",
)
class Unigram(VocabularySurrogate):
    """Frequencies with the share of unseen tokens after Good and Turing (tokens seen once)."""

    def fit(self, observations: VocabularyObservations) -> Unigram:
        self.model_ = ContextLogit({}, BaseTransition.of_unigram(observations.unigram))
        return self

    def along(self, text: ScoredText) -> Along:
        return Along(*self.model_.along(text.tokens, text.start))

    def rollout(self, prompts: Sequence[IntArray], steps: int, seed: int, temperature: float | None = 1.0) -> IntArray:
        paths: IntArray = np.asarray(self.model_.rollout(prompts, steps, seed, temperature))
        return paths
