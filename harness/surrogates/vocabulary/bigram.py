"""`bigram`: the base transitions alone, a Markov chain over the whole vocabulary."""

from __future__ import annotations

from ccmc import ContextLogit
from harness.core.registry import register
from harness.surrogates.vocabulary_base import LogitSurrogate, VocabularyObservations


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
class VocabularyBigram(LogitSurrogate):
    """P0 as it is.

    Args:
        base: which base transitions of the observations.
    """

    def __init__(self, base: str = "model") -> None:
        self.base = base

    def fit(self, observations: VocabularyObservations) -> VocabularyBigram:
        self.model_ = ContextLogit({}, observations.bases[self.base])
        return self
