"""What a surrogate over the whole vocabulary is: fitted to texts and a model's distributions along them.

The distributions are kept as what a context logit reads: mass on the types of the context, token by token, and of all
other tokens their mass in all and the expected log of each base transition. Nothing of the size of the vocabulary is
kept for a position.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ccmc import BaseTransition, ContextLogit, NumberedText, smooth_unigram
from harness.core.declarations import SurrogateDeclaration
from harness.data.texts import FloatArray, IntArray
from harness.surrogates.base import Fact


@dataclass(frozen=True)
class Law:
    """A model's next-token distributions along one text, as sampled by one law: raw, or after a decoding strategy.

    Attributes:
        inside: [n, U] probability of each type of the text, in the order of first occurrence; 0 outside the context.
        entropy: [n] nats.
        log_next: [n] log probability of the token that came.
        log_base: per base, [n] sum over all tokens of probability x log P0.
    """

    inside: FloatArray
    entropy: FloatArray
    log_next: FloatArray
    log_base: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def new(self) -> FloatArray:
        """[n] what it gives to tokens outside the context."""
        left: FloatArray = np.clip(1.0 - self.inside.sum(axis=1, dtype=np.float64), 0.0, 1.0)
        return left


@dataclass(frozen=True)
class ScoredText:
    """A prompt with its continuation, and what the model thought of every token of the continuation.

    Attributes:
        prompt, group, fold: of the prompt; folds never cut a group in two.
        tokens: [T] ids of the model's vocabulary.
        start: length of the prompt: contexts of start .. T - 1 tokens choose the next one.
        laws: `raw` and `decoded`.
    """

    prompt: str
    group: str
    fold: int
    tokens: IntArray
    start: int
    laws: Mapping[str, Law]

    @cached_property
    def numbered(self) -> NumberedText:
        """The text with its types numbered."""
        return NumberedText.of(self.tokens)

    @property
    def known(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """[n, U] which types a context holds."""
        sizes = self.numbered.sizes(self.start)
        found: np.ndarray[Any, np.dtype[np.bool_]] = np.arange(len(self.numbered.types)) < sizes[:, None]
        return found

    def __len__(self) -> int:
        """How many contexts it has."""
        return len(self.tokens) - self.start


@dataclass(frozen=True)
class Along:
    """What a surrogate gives along one text.

    Attributes:
        log_inside: [n, U] log probability of the types of the context, -inf of all others.
        log_next: [n] log probability of the token that came.
    """

    log_inside: FloatArray
    log_next: FloatArray

    @property
    def new(self) -> FloatArray:
        """[n] what it gives to tokens outside the context."""
        left: FloatArray = np.clip(1.0 - np.exp(self.log_inside).sum(axis=1), 0.0, 1.0)
        return left


@dataclass(frozen=True)
class VocabularyObservations:
    """What surrogates over the whole vocabulary are fitted to.

    Attributes:
        texts: of training prompts.
        law: which of their distributions are the targets: `raw` or `decoded`.
        bases: base transitions by name.
        vocab_size: V.
        of_texts: of some bases, one for each text to fit it with: those that have not counted the text.
    """

    texts: Sequence[ScoredText]
    law: str
    bases: Mapping[str, BaseTransition]
    vocab_size: int
    of_texts: Mapping[str, Sequence[BaseTransition]] = field(default_factory=dict)

    def to_fit(self, base: str) -> list[BaseTransition]:
        """The base transitions of each text, by which it is fitted."""
        return list(self.of_texts.get(base, [self.bases[base]] * len(self.texts)))

    @cached_property
    def unigram(self) -> FloatArray:
        """[V] smoothed frequencies of the tokens of training texts."""
        flat = np.concatenate([text.tokens for text in self.texts])
        return smooth_unigram(np.bincount(flat, minlength=self.vocab_size))


class VocabularySurrogate(ABC):
    """A surrogate over the whole vocabulary. `fit` returns self; what it learned ends in an underscore."""

    declaration: ClassVar[SurrogateDeclaration] = SurrogateDeclaration("")
    name: str = ""

    def fit(self, observations: VocabularyObservations) -> VocabularySurrogate:
        """Learn from training texts."""
        return self

    @abstractmethod
    def along(self, text: ScoredText) -> Along:
        """What it gives along a text that it was not fitted to."""

    @abstractmethod
    def rollout(self, prompts: Sequence[IntArray], steps: int, seed: int, temperature: float | None = 1.0) -> IntArray:
        """Continue prompts: [n, steps]. A prompt's tokens, its number among equal ones and the seed decide its path.

        Args:
            prompts: n sequences of token ids.
            steps: tokens to add to each.
            seed: of the samples.
            temperature: 1 where the fitted law is that of the decoded process; None takes the likeliest token.
        """

    def extra_rows(self) -> Sequence[Fact]:
        """What the fit has found, for rows about the training texts."""
        return ()


class LogitSurrogate(VocabularySurrogate):
    """A surrogate whose fit makes it a context logit: `fit` sets `model_`."""

    model_: ContextLogit

    def along(self, text: ScoredText) -> Along:
        return Along(*self.model_.along(text.tokens, text.start))

    def rollout(self, prompts: Sequence[IntArray], steps: int, seed: int, temperature: float | None = 1.0) -> IntArray:
        paths: IntArray = self.model_.rollout(prompts, steps, seed, temperature)
        return paths
