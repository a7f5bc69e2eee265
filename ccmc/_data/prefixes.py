"""Contexts that are the prefixes of sequences, written out only if someone asks for their counts.

The prefixes of a path of T tokens hold up to T x K counts, and yet each differs from the one before by one token. A
fit reads the path itself (`_stream`), so a long trajectory takes no more memory than its tokens.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ccmc._data.compact import compact
from ccmc._data.pairs import Pairs
from ccmc._data.types import BoolArray, Csr, FloatArray, IntArray
from ccmc.contexts import Contexts, prefixes

# A step along a path costs as much as one entry for every token that occurs in any path; prefixes of many short
# paths hold far fewer, and are better written out.
_WORTH = 0.25
_MOST_TOKENS = 2048


class PrefixContexts(Contexts):
    """The prefixes of length start ... T - 1 of each sequence whose next token is in its prefix.

    Args:
        tokens: all sequences one after another.
        offsets: [sequences + 1] where each begins.
        vocab_size: K.
        start: length of the shortest prefix.
        window: prefixes keep their last `window` tokens, or None.
    """

    def __init__(self, tokens: IntArray, offsets: IntArray, vocab_size: int, start: int, window: int | None) -> None:
        from ccmc._fit.stream_kernels import following_counts

        place = self.__dict__
        place["tokens"], place["offsets"], place["start"], place["window"] = tokens, offsets, start, window
        place["_vocab_size"] = vocab_size
        width = np.iinfo(np.int64).max if window is None else window
        place["following_count"] = following_counts(tokens, offsets, start, width, vocab_size)

    tokens: IntArray
    offsets: IntArray
    start: int
    window: int | None
    _vocab_size: int
    following_count: FloatArray
    """[tokens] for each position that ends a prefix, how often the next token is in it; -1 at other positions."""

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

    @cached_property
    def counts(self) -> Csr:
        """[n, K] the counts, written out."""
        stop = np.diff(self.offsets) - 1
        every = prefixes(self.tokens, self.offsets, self._vocab_size, self.start, stop, self.window)
        counts: Csr = every.sparse_counts[self.kept[self.following_count >= 0]]
        return counts

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @cached_property
    def occurring(self) -> IntArray:
        """[V] tokens that occur in any sequence."""
        return np.flatnonzero(np.bincount(self.tokens, minlength=self._vocab_size))

    @cached_property
    def renamed(self) -> NDArray[np.int32]:
        """[tokens] the tokens, numbered among those that occur."""
        number = np.zeros(self._vocab_size, np.int32)
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

    @cached_property
    def numbered_pairs(self) -> Pairs:
        """The pairs that occur."""
        if self.streamed:
            from ccmc._fit.stream import stream_pairs

            return stream_pairs(self)
        return compact(self).pairs


def pairs_of(contexts: Contexts) -> Pairs:
    """The pairs that occur, found without writing out what need not be."""
    return contexts.numbered_pairs if isinstance(contexts, PrefixContexts) else compact(contexts).pairs
