"""The context logit: which statistics of the context does a model use?

The paper's chain weighs base transitions by one statistic of the context, the counts. Its natural family is a
conditional logit over *all* tokens whose utilities are linear in statistics of the context:

    u_j = a log P0[i, j] + [j in context] (b0 + b1 log m_j + b2 log(t - last_j) + sum_k d_k m_j^(k) / m^(k) + ...).

With `closed` it is restricted to the context; a = b1 = 1 and nothing else is then the paper's chain with P = P0, and
the open form tends to it as b0 grows. a = 1 and nothing else is the Markov chain P0.

Statistics of a growing context are kept up to date in O(occurrences of the last token) a step, see `_logit/state.py`.

Source: this project; the closed form with counts alone is Ildiz et al. 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.numbered import NumberedText
from ccmc._data.types import FloatArray, IntArray
from ccmc._logit.names import ABOUT, columns_of, weights_of
from ccmc._logit.rows import embeddings_of
from ccmc.base import BaseTransition
from ccmc.choice import BASE, ChoiceRows, LogitFit
from ccmc.context_rows import ContextTable, Offset, context_rows

__all__ = ["STATISTICS", "ContextLogit", "NumberedText", "context_rows", "statistics_weights"]

STATISTICS: Mapping[str, str] = ABOUT
"""Names of statistics, with what they are. K stands for a number."""


@dataclass(frozen=True, eq=False)
class ContextLogit:
    """A context logit with its weights.

    Attributes:
        weights: by name: `base` (1 where it is not given), and those of statistics (`weights_of` lists them).
        base: P0.
        closed: only tokens of the context can come.
        offset: what is added to utilities without a weight: log m_j ("counts"), or log m_j^(1) ("followed-by-1", closed
            only: induction; a query that nothing followed yet takes the counts).
    """

    weights: Mapping[str, float]
    base: BaseTransition
    closed: bool = False
    offset: Offset = "none"

    def __post_init__(self) -> None:
        names = [name for name in self.weights if name != BASE]
        columns_of(tuple(names))
        if "similarity" in names:
            embeddings_of(self.base)
        for name, value in self.weights.items():
            if not np.isfinite(value):
                raise ValueError(f"the weight {name!r} is {value}: weights are finite")
        if self.offset == "followed-by-1" and not self.closed:
            raise ValueError("the offset followed-by-1 rules tokens out: it needs closed=True")
        if self.offset not in ("none", "counts", "followed-by-1"):
            raise ValueError(f"offset must be none, counts or followed-by-1, got {self.offset!r}")

    @classmethod
    def from_fit(
        cls, fit: LogitFit, base: BaseTransition, closed: bool = False, offset: Offset = "none"
    ) -> ContextLogit:
        """The model of a fit, fixed weights included."""
        full = dict(zip((BASE, *fit.rows.names), fit.full.tolist(), strict=True))
        return cls(full, base, closed, offset)

    @property
    def names(self) -> tuple[str, ...]:
        """D names of the weights of statistics."""
        return tuple(name for name in self.weights if name != BASE)

    @property
    def vector(self) -> FloatArray:
        """[1 + D] weight of log P0, then those of `names`."""
        return np.array([self.weights.get(BASE, 1.0), *(self.weights[name] for name in self.names)], dtype=np.float64)

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.base.vocab_size

    def rows(self, text: ArrayLike, start: int = 1) -> ChoiceRows:
        """The choices along one text, with the tokens that came as targets; see `context_rows`."""
        return context_rows([text], self.names, self.base, start, closed=self.closed, offset=self.offset)

    def log_probabilities(self, text: ArrayLike, start: int = 1) -> FloatArray:
        """[T - start] log probability of each token of a text from `start` on, given those before it.

        -inf where a closed one meets a token outside its context.
        """
        return self.along(text, start)[1]

    def along(
        self, text: ArrayLike, start: int = 1, table: ContextTable | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Log probabilities along a text [T], for its contexts of start .. T - 1 tokens.

        Args:
            text: tokens.
            start: tokens of the first context.
            table: the statistics of these contexts, where they have been computed, with this model's `base`.

        Returns:
            [T - start, U] of the types of the text, in the order of their first occurrence (`NumberedText`), -inf where
            a context does not hold them; and [T - start] of the token that came, -inf where a closed one met a token
            outside its context.
        """
        from ccmc._logit.newton import log_probabilities

        tokens = np.asarray(text, dtype=np.int64)
        table = ContextTable.of([text], self.names, self.base, start) if table is None else table
        numbered = table.texts[0]
        rows = table.rows(self.names, closed=self.closed, offset=self.offset, targets="none")
        of, rest = log_probabilities(rows.terms, self.vector)
        sizes = np.diff(rows.ptr)
        inside = np.full((len(sizes), len(numbered.types)), -np.inf)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        inside[owner, np.arange(len(of)) - np.repeat(rows.ptr[:-1], sizes)] = of
        following = numbered.local[start:]
        came: FloatArray = inside[np.arange(len(sizes)), following]
        new = following >= sizes
        if not self.closed:
            log_p0 = self.base.log_at(tokens[start - 1 : -1][new], tokens[start:][new])
            came[new] = self.vector[0] * log_p0 - rest[new, 1]
        return inside, came

    def next_token(self, contexts: Sequence[ArrayLike]) -> FloatArray:
        """[n, V] distributions over all tokens after n contexts, each a sequence of at least one token."""
        from ccmc._logit.newton import log_probabilities

        made = []
        for context in contexts:
            tokens = np.asarray(context, dtype=np.int64)
            asked = np.append(tokens, tokens[-1:])  # any token: only its context is read
            rows = context_rows(
                [asked], self.names, self.base, len(tokens), closed=self.closed, offset=self.offset, targets="none"
            )
            of, rest = log_probabilities(rows.terms, self.vector)
            p = np.zeros(self.vocab_size)
            if not self.closed:
                p = np.exp(self.vector[0] * self.base.log_row(int(tokens[-1])) - rest[0, 1])
            kept = NumberedText.of(tokens).types
            p[kept] = 0.0
            p[kept] = np.exp(of)
            made.append(p)
        return np.stack(made)

    def rollout(self, prompts: Sequence[ArrayLike], steps: int, seed: int, temperature: float | None = 1.0) -> IntArray:
        """Continue prompts by its own tokens: [n, steps].

        A prompt's tokens, its number among equal prompts and the seed decide its random numbers, so other prompts do
        not change its continuation. A step costs O(types of the context + top of P0). Of equal prompts in a
        row, what they share is computed once.

        Args:
            prompts: n sequences of at least one token.
            steps: tokens to add to each.
            seed: non-negative.
            temperature: utilities are divided by it; None takes the likeliest token.

        Raises:
            ValueError: a prompt is empty or has a token outside the vocabulary, or the temperature is not positive.
        """
        from ccmc._logit.walk import Law, roll

        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature must be positive, or None for the likeliest token, got {temperature}")
        if int(steps) != steps or steps < 0 or int(seed) != seed or seed < 0:
            raise ValueError(f"steps and seed must be non-negative integers, got {steps} and {seed}")
        given = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
        for index, prompt in enumerate(given):
            if prompt.ndim != 1 or not len(prompt):
                raise ValueError(f"prompt {index} is empty: a path needs a first token")
            if prompt.min() < 0 or prompt.max() >= self.vocab_size:
                raise ValueError(f"prompt {index} has a token outside the vocabulary of {self.vocab_size}")
        law = self._laws.get(temperature)
        if law is None:
            law = Law(columns_of(self.names), self.vector, self.base, self.closed, self.offset, temperature)
            self._laws[temperature] = law
        return roll(law, given, int(steps), int(seed))

    @cached_property
    def _laws(self) -> dict[float | None, Any]:
        """What walks need, by temperature."""
        return {}


def statistics_weights(statistics: Sequence[str]) -> tuple[str, ...]:
    """Names of all weights of some statistics, in order.

    Raises:
        ValueError: a statistic is unknown.
    """
    return tuple(name for statistic in statistics for name in weights_of(statistic))
