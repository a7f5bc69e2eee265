"""Sequences whose prefixes are contexts, and what a fit needs of them without writing the counts out.

The prefixes of a path of T tokens hold up to T x K counts, and yet each differs from the one before by one token. A
fit reads the path itself (`_fit/stream.py`), so a long trajectory takes no more memory than its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ccmc._data.arrays import as_width
from ccmc._data.counts import prefix_counts
from ccmc._data.pairs import Pairs
from ccmc._data.types import BoolArray, Csr, FloatArray, IntArray

# A step along a path costs as much as one entry for every token that occurs in any path; prefixes of many short
# paths hold far fewer, and are better written out.
_WORTH = 0.25
_MOST_TOKENS = 2048


@dataclass(frozen=True, eq=False)
class Prefixes:
    """The prefixes of length start ... T - 1 of each sequence whose next token is in its prefix."""

    tokens: IntArray
    """[tokens] all sequences one after another."""
    offsets: IntArray
    """[sequences + 1] where each begins."""
    vocab_size: int
    """K."""
    start: int
    """Length of the shortest prefix."""
    window: int | None
    """Prefixes keep their last `window` tokens, or all."""
    following_count: FloatArray
    """[tokens] for each position that ends a prefix, how often the next token is in it; -1 at other positions."""

    @classmethod
    def of(cls, tokens: IntArray, offsets: IntArray, vocab_size: int, start: int, window: int | None) -> Prefixes:
        """The prefixes of the sequences, with the count of each next token."""
        from ccmc._data.prefix_kernels import following_counts

        counts = following_counts(tokens, offsets, start, as_width(window), vocab_size)
        return cls(tokens, offsets, vocab_size, start, window, counts)

    @cached_property
    def kept(self) -> BoolArray:
        """[tokens] whether a position ends one of the contexts."""
        kept: BoolArray = self.following_count > 0
        return kept

    @cached_property
    def positions(self) -> IntArray:
        """[n] position in `tokens` of each context's query."""
        return np.flatnonzero(self.kept)

    @cached_property
    def query(self) -> IntArray:
        """[n] last token of each context."""
        query: IntArray = self.tokens[self.positions]
        return query

    @cached_property
    def following(self) -> IntArray:
        """[n] the token after each context."""
        following: IntArray = self.tokens[self.positions + 1]
        return following

    def counts(self) -> Csr:
        """[n, K] the counts, written out."""
        stop = np.diff(self.offsets) - 1
        every, _ = prefix_counts(self.tokens, self.offsets, self.vocab_size, self.start, stop, self.window)
        counts: Csr = every[self.kept[self.following_count >= 0]]
        return counts

    @cached_property
    def occurring(self) -> IntArray:
        """[V] tokens that occur in any sequence."""
        return np.flatnonzero(np.bincount(self.tokens, minlength=self.vocab_size))

    @cached_property
    def renamed(self) -> NDArray[np.int32]:
        """[tokens] the tokens, numbered among those that occur."""
        number = np.zeros(self.vocab_size, np.int32)
        number[self.occurring] = np.arange(len(self.occurring))
        renamed: NDArray[np.int32] = number[self.tokens]
        return renamed

    @cached_property
    def streamed(self) -> bool:
        """Whether a fit should follow the sequences instead of reading the counts."""
        if self.window is not None or len(self.occurring) > _MOST_TOKENS:
            return False
        parts = np.split(self.tokens, self.offsets[1:-1])
        width = sum(np.count_nonzero(np.bincount(part)) * len(part) for part in parts)
        return bool(width >= _WORTH * len(self.occurring) * len(self.tokens))

    def pairs(self) -> Pairs:
        """The pairs that occur, from the first and last occurrences of each token in each sequence."""
        from ccmc._data.compact_kernels import sorted_by_query
        from ccmc._data.prefix_kernels import join_prefixes

        size = self.vocab_size
        first, last, seen = self._occurrences()
        names = self.occurring
        number = np.zeros(size, np.int64)
        number[names] = seen.sum(axis=1)
        ptr = np.concatenate([[0], np.cumsum(number)]).astype(np.int64)
        token = np.nonzero(seen)[1].astype(np.int64)
        component, few = np.zeros(len(token), np.int64), np.zeros(len(names), np.int64)
        join_prefixes(first, last, _starts(seen), token, component, few)
        components = np.zeros(size, np.int64)
        components[names] = few
        order, _, query_ptr = sorted_by_query(self.query, size)
        return Pairs(order, query_ptr, ptr, names[token], component, components)

    def surely_connected(self, pairs: Pairs) -> bool:
        """Whether each component of each query is strongly connected, given that all its tokens were emitted."""
        from ccmc._data.prefix_kernels import strongly_connected

        first, _, seen = self._occurrences()
        query_ptr = np.concatenate([[0], pairs.query_ptr[self.occurring + 1]])
        return bool(
            strongly_connected(
                self.renamed, self.offsets, self.positions[pairs.order], query_ptr, first, _starts(seen),
                np.nonzero(seen)[1].astype(np.int64), pairs.component,
            )
        )  # fmt: skip

    def _occurrences(self) -> tuple[IntArray, IntArray, BoolArray]:
        """first and last [sequences, V] and seen [V, V], with tokens numbered among those that occur."""
        from ccmc._data.prefix_kernels import first_and_last

        size, sequences = len(self.occurring), len(self.offsets) - 1
        first = np.full((sequences, size), np.iinfo(np.int64).max)
        last, seen = np.full((sequences, size), -1), np.zeros((size, size), np.bool_)
        first_and_last(self.renamed, self.offsets, self.kept, first, last, seen)
        return first, last, seen


def _starts(seen: BoolArray) -> IntArray:
    starts: IntArray = np.concatenate([[0], np.cumsum(seen.sum(axis=1))]).astype(np.int64)
    return starts
