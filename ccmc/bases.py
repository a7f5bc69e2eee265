"""Base transitions that are fitted to texts, and base transitions text by text.

A bigram of counts is smoothed by Witten and Bell's interpolation: a token that came n times after a query, which was
followed c times, by T different tokens, has

    P0[i, j] = (n_ij + T_i q_j) / (c_i + T_i),

and q is the unigram, smoothed towards the whole vocabulary. What never followed the query has the proportions of the
unigram, which is the form that `BaseTransition` keeps.

A text that was counted finds itself in P0, and the weight of P0 in a fit to that text is then wrong. So each text has
base transitions of its own, counted without it: `TextBases`.

Source: Witten and Bell, The zero-frequency problem, IEEE Transactions on Information Theory 37, 1991; interpolated as
in Chen and Goodman, An empirical study of smoothing techniques for language modeling, 1999.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ccmc._data.types import FloatArray, IntArray
from ccmc.base import BaseTransition, tail_scale


def smooth_unigram(counts: ArrayLike) -> FloatArray:
    """[V] frequencies in which every token has some probability.

    Args:
        counts: [V] how often each token came.

    Returns:
        Counts over their sum, and a share that the whole vocabulary has alike: as many as came once (Good 1953), at
        least one. Without any counts, all alike.
    """
    n = np.asarray(counts, dtype=np.float64)
    total = n.sum()
    if total == 0:
        return np.full(len(n), 1.0 / len(n))
    share = max(int((n == 1).sum()), 1) / total
    smooth: FloatArray = (1 - share) * n / total + share / len(n)
    return smooth


def fit_bigram(texts: Sequence[ArrayLike], vocab_size: int, top: int = 256) -> BaseTransition:
    """P0 by counting which token followed which, smoothed; texts are not joined.

    Args:
        texts: sequences of tokens; none gives the uniform distribution.
        vocab_size: V.
        top: how many tokens a row keeps at most, of those that followed the query; all others have what is left in the
            proportions of the unigram, which is exact where no more than these followed.

    Returns:
        P0 with a row for each token that was followed by another.

    Raises:
        ValueError: a token lies outside the vocabulary, or `top` is less than 1.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    given = [np.asarray(text, dtype=np.int64) for text in texts]
    for index, text in enumerate(given):
        if len(text) and (text.min() < 0 or text.max() >= vocab_size):
            raise ValueError(f"text {index} has a token outside the vocabulary of {vocab_size}")
    flat = np.concatenate([np.empty(0, np.int64), *given])
    unigram = smooth_unigram(np.bincount(flat, minlength=vocab_size))
    pairs = np.concatenate([np.empty(0, np.int64), *(text[:-1] * vocab_size + text[1:] for text in given)])
    return _of_counts(*np.unique(pairs, return_counts=True), unigram, top)


def _of_counts(pairs: IntArray, times: IntArray, unigram: FloatArray, top: int) -> BaseTransition:
    """Rows from the pairs that came: query x V + token, in order, and how often."""
    from ccmc._logit.counting import fill_rows

    vocab = len(unigram)
    queries, first, different = np.unique(pairs // vocab, return_index=True, return_counts=True)
    followed = np.add.reduceat(times, first) if len(first) else np.empty(0, np.int64)
    share = different / (followed + different)
    of, token = np.repeat(np.arange(len(queries)), different), pairs % vocab
    p = times / (followed + different)[of] + share[of] * unigram[token]
    order = np.lexsort((token, -p, of))
    log, width = np.log(unigram), max(min(top, vocab - 1, int(different.max(initial=0))), 0)
    tokens, log_p = np.empty((len(queries), width), np.int32), np.empty((len(queries), width))
    frequent = np.argsort(-unigram, kind="stable")
    ptr = np.append(first, len(pairs)).astype(np.int64)
    fill_rows(ptr, token[order], p[order], share, unigram, frequent, tokens, log_p)
    order = np.argsort(-log_p, axis=1, kind="stable")  # a frequent token may be likelier than one that followed once
    tokens, log_p = np.take_along_axis(tokens, order, axis=1), np.take_along_axis(log_p, order, axis=1)
    row = np.full(vocab, -1, np.int64)
    row[queries] = np.arange(len(queries))
    return BaseTransition(row, tokens, log_p, tail_scale(tokens, log_p, log), log)


@dataclass(frozen=True, eq=False)
class TextBases:
    """Base transitions of texts, one for each; several texts may have the same.

    Attributes:
        each: the different ones, all over one vocabulary.
        of: [texts] which of them a text has.
    """

    each: tuple[BaseTransition, ...]
    of: IntArray

    @classmethod
    def given(cls, base: BaseTransition | Sequence[BaseTransition], texts: int) -> TextBases:
        """From one for all texts, or one for each.

        Raises:
            ValueError: other numbers of texts and base transitions, or vocabularies that differ.
        """
        if isinstance(base, BaseTransition):
            return cls((base,), np.zeros(texts, np.int64))
        if len(base) != texts or not texts:
            raise ValueError(f"base transitions text by text need one for each of {texts} texts, got {len(base)}")
        different = {id(one): one for one in base}
        places = {key: place for place, key in enumerate(different)}
        sizes = {one.vocab_size for one in different.values()}
        if len(sizes) > 1:
            raise ValueError(f"base transitions of texts have one vocabulary, got {sorted(sizes)} tokens")
        return cls(tuple(different.values()), np.array([places[id(one)] for one in base], dtype=np.int64))

    def __getitem__(self, text: int) -> BaseTransition:
        """Those of one text."""
        return self.each[int(self.of[text])]

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.each[0].vocab_size

    @property
    def positive(self) -> bool:
        """Has every token some probability after every query, in all of them?"""
        return all(base.positive for base in self.each)

    def moments(self, a: float) -> FloatArray:
        """Those of `BaseTransition.moments`, one below the other."""
        return np.concatenate([base.moments(a) for base in self.each])

    def log_at(self, text: IntArray, query: IntArray, token: IntArray) -> FloatArray:
        """[n] log P0 of pairs of tokens, each by its text."""
        if len(self.each) == 1:
            return self.each[0].log_at(query, token)
        found = np.empty(len(query))
        for place, base in enumerate(self.each):
            own = self.of[text] == place
            found[own] = base.log_at(query[own], token[own])
        return found

    def rows(self, text: IntArray, query: IntArray) -> IntArray:
        """[n] the row of `moments` of contexts, by text and last token."""
        found = np.empty(len(query), np.int64)
        low = 0
        for place, base in enumerate(self.each):
            own = self.of[text] == place
            stored = base.row[query[own]]
            found[own] = low + np.where(stored < 0, len(base.tokens), stored)
            low += len(base.tokens) + 1
        return found
