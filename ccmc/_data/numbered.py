"""Texts whose types are numbered in the order in which they first occur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.types import IntArray


@dataclass(frozen=True, eq=False)
class NumberedText:
    """A text whose types are numbered in the order in which they first occur.

    Attributes:
        types: [U] tokens.
        local: [T] the text in these numbers.
        distinct: [T] how many types the first t + 1 tokens hold: the types of a context are 0 .. distinct - 1.
    """

    types: IntArray
    local: IntArray
    distinct: IntArray

    @classmethod
    def of(cls, tokens: ArrayLike) -> NumberedText:
        """Number a text [T].

        Raises:
            ValueError: it is empty, or no list of tokens.
        """
        text = np.asarray(tokens, dtype=np.int64)
        if text.ndim != 1 or not len(text) or text.min() < 0:
            raise ValueError("a text is a list of at least one token, none below 0")
        types, first, place = np.unique(text, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first)).astype(np.int64)
        local = rank[place]
        return cls(types[np.argsort(first)], local, np.maximum.accumulate(local) + 1)

    def sizes(self, start: int) -> IntArray:
        """[T - start] candidates of the contexts of start .. T - 1 tokens."""
        return self.distinct[start - 1 : -1]
