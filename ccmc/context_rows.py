"""Choices along texts: what every context offers to the next one, for a fit of a context logit or a prediction.

Statistics of contexts depend on the texts and on P0 alone. Where several fits read them, for other targets or with some
of the statistics, a `ContextTable` computes them once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.numbered import NumberedText
from ccmc._data.types import FloatArray
from ccmc._logit.names import columns_of
from ccmc._logit.rows import (
    Statistics,
    came,
    closed_targets,
    given,
    no_targets,
    offsets_of,
    statistics_of,
)
from ccmc.base import BaseTransition
from ccmc.bases import TextBases
from ccmc.choice import ChoiceRows, Outside

Offset = Literal["none", "counts", "followed-by-1"]
Targets = Literal["tokens", "none"] | Sequence[tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, eq=False)
class ContextTable:
    """Statistics of the contexts of texts: n contexts with N candidates.

    Attributes:
        texts, starts: the texts, and how many tokens the first context of each has.
        names: D names of weights.
        bases: P0, text by text.
        statistics: what was computed.
    """

    texts: tuple[NumberedText, ...]
    starts: tuple[int, ...]
    names: tuple[str, ...]
    bases: TextBases
    statistics: Statistics

    @classmethod
    def of(
        cls,
        texts: Sequence[ArrayLike],
        names: Sequence[str],
        base: BaseTransition | Sequence[BaseTransition],
        start: int | Sequence[int] = 1,
        dtype: type[np.float32] | type[np.float64] = np.float64,
    ) -> ContextTable:
        """Compute the statistics of texts; arguments and errors as of `context_rows`."""
        columns = columns_of(tuple(names))
        starts = [start] * len(texts) if isinstance(start, int) else list(start)
        numbered, bases = [NumberedText.of(text) for text in texts], TextBases.given(base, len(texts))
        for index, (text, first) in enumerate(zip(numbered, starts, strict=True)):
            if not 1 <= first < len(text.local):
                raise ValueError(f"text {index} has {len(text.local)} tokens: contexts cannot start at {first}")
            if int(text.types.max()) >= bases.vocab_size:
                raise ValueError(f"text {index} has token {int(text.types.max())}; P0 has {bases.vocab_size} tokens")
        made = statistics_of(numbered, starts, columns, bases, dtype)
        return cls(tuple(numbered), tuple(starts), columns.names, bases, made)

    def rows(
        self,
        names: Sequence[str] | None = None,
        *,
        closed: bool = False,
        offset: Offset = "none",
        targets: Targets = "tokens",
    ) -> ChoiceRows:
        """The choices, with some of the statistics; arguments as of `context_rows`.

        Statistics that are neighbours in the table are not copied.

        Raises:
            ValueError: the table does not have a statistic.
        """
        asked = self.names if names is None else tuple(names)
        if missing := [name for name in asked if name not in self.names]:
            raise ValueError(f"the table has no statistic {missing[0]!r}; it has {', '.join(self.names)}")
        found = self.statistics
        shift = np.zeros(len(found.token))
        if offset != "none":
            shift = np.concatenate([offsets_of(*text, offset) for text in zip(self.texts, self.starts, strict=True)])
        if isinstance(targets, str) and targets == "none":
            aim, beyond, weights = no_targets(shift, found.ptr)
        else:
            aim, beyond = self._aim(targets)
            weights = np.ones(len(beyond))
            if closed:
                aim, beyond, weights = closed_targets(aim, shift, found.ptr)
        outside = (
            None if closed else Outside(self.bases, found.query, found.token, beyond[:, 0], beyond[:, 1], found.text)
        )
        features = _some(found.columns, [self.names.index(name) for name in asked]).T
        return ChoiceRows(features, aim, found.ptr, shift, weights, asked, outside, found.log_base)

    def expected_log_base(self, inside: Sequence[FloatArray]) -> list[FloatArray]:
        """Per text [n] the sum of mass x log P0 over the tokens of each context, of masses [n, U] on its types."""
        mass, found = self._inside(inside), self.statistics
        terms = np.where(mass > 0, mass * np.where(mass > 0, found.log_base, 0.0), 0.0)
        summed = np.add.reduceat(terms, found.ptr[:-1])
        ends = np.cumsum([len(text.local) - start for text, start in zip(self.texts, self.starts, strict=True)])
        return np.split(summed, ends[:-1])

    def _aim(self, targets: Any) -> tuple[FloatArray, FloatArray]:
        if not isinstance(targets, str):
            beyond = [np.asarray(one, dtype=np.float64) for _, one in targets]
            return self._inside([inside for inside, _ in targets]), np.concatenate(beyond)
        own = enumerate(zip(self.texts, self.starts, strict=True))
        made = [came(text, start, self.bases[index]) for index, (text, start) in own]
        return np.concatenate([aim for aim, _ in made]), np.concatenate([beyond for _, beyond in made])

    def _inside(self, inside: Sequence[FloatArray]) -> FloatArray:
        own = zip(self.texts, self.starts, inside, strict=True)
        return np.concatenate([given(mass, text.sizes(start)) for text, start, mass in own])


def _some(columns: Any, wanted: list[int]) -> Any:
    """Some of the columns: a view where they are neighbours."""
    if not wanted or wanted == list(range(wanted[0], wanted[0] + len(wanted))):
        return columns[wanted[0] : wanted[0] + len(wanted)] if wanted else columns[:0]
    return columns[wanted]


def context_rows(
    texts: Sequence[ArrayLike],
    names: Sequence[str],
    base: BaseTransition | Sequence[BaseTransition],
    start: int | Sequence[int] = 1,
    *,
    closed: bool = False,
    offset: Offset = "none",
    targets: Targets = "tokens",
    dtype: type[np.float32] | type[np.float64] = np.float64,
) -> ChoiceRows:
    """Choices along texts: every context of `start` tokens and more chooses the next one.

    Args:
        texts: sequences of tokens.
        names: of weights, see `weights_of`; `base` is not among them.
        base: P0, of all texts or each.
        start: tokens of the first context, for all texts or each.
        closed: no other tokens than those of the context; contexts whose target has none of its mass there are left out
            by a weight of 0.
        offset: as of `ContextLogit`.
        targets: `tokens`: what came next. Otherwise two arrays for each text: [n, U] mass on its types in the order of
            their first occurrence (what lies outside the context is not read), and [n, 2] the mass of all other tokens,
            and the sum of mass x log P0 over them. `none`: rows to predict with, whose targets mean nothing.
        dtype: of the features, which take most of the memory; float32 halves it.

    Returns:
        The rows, one for each context.

    Raises:
        ValueError: a name is unknown, a text is empty or too short, or has a token outside the vocabulary, or there are
            other numbers of texts and base transitions.
    """
    table = ContextTable.of(texts, names, base, start, dtype)
    return table.rows(closed=closed, offset=offset, targets=targets)
