"""`unigram`: frequencies of tokens in training texts, whatever the context."""

from __future__ import annotations

from ccmc import BaseTransition, ContextLogit
from harness.core.registry import register
from harness.surrogates.vocabulary_base import LogitSurrogate, VocabularyObservations


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
class Unigram(LogitSurrogate):
    """Frequencies with the share of unseen tokens after Good and Turing (tokens seen once)."""

    def fit(self, observations: VocabularyObservations) -> Unigram:
        self.model_ = ContextLogit({}, BaseTransition.of_unigram(observations.unigram))
        return self
