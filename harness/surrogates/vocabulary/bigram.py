"""`bigram`: the base transitions alone, a Markov chain over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccmc import ContextLogit
from harness.core.registry import register
from harness.data.texts import IntArray
from harness.surrogates.vocabulary_base import Along, ScoredText, VocabularyObservations, VocabularySurrogate


@register.surrogate(
    "bigram",
    of="vocabulary",
    sees=("query",),
    parameters="V(V-1)",
    rollout=True,
    open=True,
    rung=20,
    about="the base transitions alone: a Markov chain over the whole vocabulary",
    cost="nothing",
    source="this project",
)
class VocabularyBigram(VocabularySurrogate):
    """P0 as it is.

    Args:
        base: which base transitions of the observations.
    """

    def __init__(self, base: str = "model") -> None:
        self.base = base

    def fit(self, observations: VocabularyObservations) -> VocabularyBigram:
        self.model_ = ContextLogit({}, observations.bases[self.base])
        return self

    def along(self, text: ScoredText) -> Along:
        return Along(*self.model_.along(text.tokens, text.start))

    def rollout(self, prompts: Sequence[IntArray], steps: int, seed: int, temperature: float | None = 1.0) -> IntArray:
        paths: IntArray = np.asarray(self.model_.rollout(prompts, steps, seed, temperature))
        return paths
