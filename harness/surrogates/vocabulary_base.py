"""What a surrogate over the whole vocabulary is: fitted to texts and a model's distributions along them.

The distributions are kept as what a context logit reads: mass on the types of the context, token by token, and of all
other tokens their mass in all and the expected log of each base transition. Nothing of the size of the vocabulary is
kept for a position.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np

from ccmc import BaseTransition, ContextLogit, ContextReader, ContextTable, NumberedText, smooth_unigram
from harness.core.declarations import SurrogateDeclaration
from harness.data.texts import FloatArray, IntArray
from harness.surrogates._fitting.cut_walks import LawReader
from harness.surrogates.base import Fact


class LastTable:
    """The statistics of contexts that were computed last, for all that read some of them with the same base."""

    def __init__(self) -> None:
        self._key: object = None
        self._table: ContextTable | None = None

    def holding(self, key: object, names: Sequence[str], make: Callable[[], ContextTable]) -> ContextTable:
        """The last table where it is of this key and has these statistics, else a new one."""
        if self._table is None or self._key != key or not set(names) <= set(self._table.names):
            self._key, self._table = key, None
            self._table = make()
        return self._table


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
    def _table(self) -> LastTable:
        return LastTable()

    def contexts(self, base: BaseTransition, names: Sequence[str]) -> ContextTable:
        """Statistics of its contexts, those with these names at least."""
        make = partial(ContextTable.of, [self.tokens], names, base, self.start)
        return self._table.holding(id(base), names, make)

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

    def under(self, law: str) -> VocabularyObservations:
        """The same texts, to be fitted to another law: what was computed of their contexts stays."""
        other = replace(self, law=law)
        other.__dict__.update(_table=self._table, _targets=self._targets)
        return other

    @cached_property
    def _table(self) -> LastTable:
        return LastTable()

    def to_fit(self, base: str) -> list[BaseTransition]:
        """The base transitions of each text, by which it is fitted."""
        return list(self.of_texts.get(base, [self.bases[base]] * len(self.texts)))

    def contexts(self, base: str, names: Sequence[str]) -> ContextTable:
        """Statistics of the contexts of all texts, those with these names at least."""
        texts = self.texts
        make = partial(
            ContextTable.of,
            [text.tokens for text in texts],
            names,
            self.to_fit(base),
            [text.start for text in texts],
            np.float32,
        )
        return self._table.holding(base, names, make)

    def targets(self, base: str) -> list[tuple[FloatArray, FloatArray]]:
        """The law along each text as `ccmc.context_rows` takes targets."""
        if (key := (self.law, base)) not in self._targets:
            laws = [text.laws[self.law] for text in self.texts]
            inside = [np.asarray(law.inside, dtype=np.float64) for law in laws]
            within = self.contexts(base, ()).expected_log_base(inside)
            self._targets.clear()  # one law is fitted after the other
            self._targets[key] = [
                (mass, beyond_of(law, one, known, base))
                for law, mass, one, known in zip(laws, inside, self.to_fit(base), within, strict=True)
            ]
        return self._targets[key]

    @cached_property
    def _targets(self) -> dict[tuple[str, str], list[tuple[FloatArray, FloatArray]]]:
        return {}

    @cached_property
    def unigram(self) -> FloatArray:
        """[V] smoothed frequencies of the tokens of training texts."""
        flat = np.concatenate([text.tokens for text in self.texts])
        return smooth_unigram(np.bincount(flat, minlength=self.vocab_size))


def beyond_of(law: Law, base: BaseTransition, within: FloatArray, name: str) -> FloatArray:
    """[n, 2] mass of all tokens outside a context, and the sum of mass x log P0 over them.

    Args:
        law: along one text.
        base: P0 of the text, and its name.
        within: [n] the sum of mass x log P0 over the types of the context.
    """
    if base.tokens.shape[0] == 0 and np.ptp(base.log_unigram) == 0:  # flat: every token has the same log P0
        expected = np.full(len(within), base.log_unigram[0])
    else:
        expected = law.log_base[name]
    new = law.new
    return np.column_stack([new, np.where(new > 0, np.minimum(expected - within, 0.0), 0.0)])


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

    def reader(self) -> LawReader | None:
        """A reader of an empty context, tokens in, log laws over the vocabulary out; None: it has no walks with cuts.

        Walks to which a strategy with `top_k`, `top_p` or `min_p` is applied afterwards are made by it.
        """
        return None

    def extra_rows(self) -> Sequence[Fact]:
        """What the fit has found, for rows about the training texts."""
        return ()


class LogitSurrogate(VocabularySurrogate):
    """A surrogate whose fit makes it a context logit: `fit` sets `model_`."""

    model_: ContextLogit

    def along(self, text: ScoredText) -> Along:
        table = text.contexts(self.model_.base, self.model_.names)
        return Along(*self.model_.along(text.tokens, text.start, table))

    def rollout(self, prompts: Sequence[IntArray], steps: int, seed: int, temperature: float | None = 1.0) -> IntArray:
        paths: IntArray = self.model_.rollout(prompts, steps, seed, temperature)
        return paths

    def reader(self) -> LawReader:
        return ContextReader(self.model_)
