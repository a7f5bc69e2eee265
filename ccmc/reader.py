"""A context logit as it is read: tokens go in one after the other, the law of the next one comes out.

A token costs O(types of the context), and a law one pass over the vocabulary, however long the context is.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.types import FloatArray, IntArray
from ccmc.context_logit import ContextLogit

ROOM = 64  # tokens that a context has room for at first; it grows twofold


class ContextReader:
    """A growing context of one text under a context logit.

    Args:
        model: whose law is wanted.
        room: tokens to have room for at first.
    """

    def __init__(self, model: ContextLogit, room: int = ROOM) -> None:
        from ccmc._logit.names import columns_of
        from ccmc._logit.walk import Law

        self.model = model
        self._law = Law(columns_of(model.names), model.vector, model.base, model.closed, model.offset, 1.0)
        self._tokens: IntArray = np.empty(0, np.int64)
        self._log_row = lru_cache(maxsize=256)(model.base.log_row)
        self._open(max(int(room), 1))

    def _open(self, size: int) -> None:
        from ccmc._logit.reading_kernels import opened

        self._size, self._types = size, 0
        self._arrays = self._law.arrays(size)
        base = self._law.base
        self._state, self._after = opened(len(base.row), size, len(self._arrays.levels), base.hidden.shape[1])
        self._scratch = np.empty(size)

    def __len__(self) -> int:
        """How many tokens it has read."""
        return len(self._tokens)

    @property
    def tokens(self) -> IntArray:
        """[T] the tokens so far."""
        return self._tokens.copy()

    def read(self, tokens: ArrayLike, laws: int = 1) -> FloatArray:
        """Read tokens, and give the log law of what comes after each of the last ones.

        Args:
            tokens: [n] token ids, at least one.
            laws: after how many of them, from the end; at most n.

        Returns:
            [laws, V] log probabilities; -inf for tokens that a closed model rules out.

        Raises:
            ValueError: no token, one outside the vocabulary, or more laws than tokens.
        """
        from ccmc._logit.reading_kernels import read

        given = np.atleast_1d(np.asarray(tokens, dtype=np.int64))
        if given.ndim != 1 or not len(given):
            raise ValueError("a reader takes at least one token, in one dimension")
        if given.min() < 0 or given.max() >= self.model.vocab_size:
            raise ValueError(f"a token lies outside the vocabulary of {self.model.vocab_size}")
        if not 0 <= laws <= len(given):
            raise ValueError(f"{len(given)} tokens have at most as many laws, got {laws}")
        before, total = len(self), len(self) + len(given)
        if total > self._size:
            known = self._tokens
            self._open(max(2 * self._size, total))
            if before:
                nothing = np.empty((0, 0))
                self._types = read(known, 0, 0, self._state, self._after, self._arrays, self._law.base, before + 1,
                                   self._scratch, nothing, np.empty(0))  # fmt: skip
        inside, whole = np.empty((laws, self._size)), np.empty(laws)
        first = total - laws + 1
        counts = self._count_types(given, laws)
        self._types = read(given, before, self._types, self._state, self._after, self._arrays, self._law.base, first,
                           self._scratch, inside, whole)  # fmt: skip
        self._tokens = np.concatenate([self._tokens, given])
        found = np.full((laws, self.model.vocab_size), -np.inf)
        a = float(self.model.vector[0])
        for row, (many, last) in enumerate(zip(counts, self._tokens[total - laws :].tolist(), strict=True)):
            if not self.model.closed:
                found[row] = a * self._log_row(last) - whole[row] if a else -whole[row]
            found[row, self._state.types[:many]] = inside[row, :many] - whole[row]
        return found

    def _count_types(self, given: IntArray, laws: int) -> IntArray:
        """[laws] how many types the context has after each of the last tokens."""
        new, seen = np.zeros(len(given), np.int64), set()
        for place, token in enumerate(given.tolist()):
            if self._state.place[token] < 0 and token not in seen:
                new[place] = 1
                seen.add(token)
        counts: IntArray = (self._types + np.cumsum(new))[len(given) - laws :]
        return counts

    def copy(self) -> ContextReader:
        """A reader of the same context that goes its own way."""
        other = object.__new__(ContextReader)
        other.__dict__.update(self.__dict__)
        other._state = self._state._replace(**{name: part.copy() for name, part in self._state._asdict().items()})
        other._after = self._after._replace(**{name: part.copy() for name, part in self._after._asdict().items()})
        other._scratch = self._scratch.copy()
        return other
