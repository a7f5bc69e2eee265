"""Base transitions over a whole vocabulary: the likeliest tokens of each row, and one common tail.

A row of a vocabulary of 49,152 tokens is kept as its `top` likeliest tokens and what is left of its probability, spread
over all other tokens in the proportions of a unigram that the rows share:

    P0[i, j] = p[i, j] for j in top(i),    P0[i, j] = rest_i unigram_j / sum of unigram outside top(i) for any other j.

Sums of P0[i, j]^a over all tokens then cost O(top) a row, once the sum of unigram^a is known. A query without a row of
its own has the unigram.

Rows that are logits of a model, P0[i, j] proportional to exp(hidden_i . key_j + bias_j), are kept exactly by `Factors`,
in O(d) numbers a row: which tokens of a context are likely hangs on probabilities far below the likeliest ones. Their
sums of P0^a are tabled once at some a and interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccmc._data.storage import load_tensors, save_tensors
from ccmc._data.types import FloatArray, IntArray

Int32Array = NDArray[np.int32]
Float32Array = NDArray[np.float32]

RANGE = (0.04, 1.3)
"""Exponents a for which sums of P0^a are tabled; for others they are those of the sparse form."""
NODES = 24
_PAIRS = 20_000


@dataclass(frozen=True, eq=False)
class Factors:
    """Rows of P0 as logits of a model.

    Attributes:
        hidden: [R, d] of the stored rows, float32.
        keys: [V, d] of all tokens, float32.
        bias: [V] added to logits.
        cap: logits l are cap tanh(l / cap); 0: as they are.
        log_norm: [R] log of the sum of exp(logits).
        log_sums: [R, M] log of the sum of P0^a at the M nodes of a.
    """

    hidden: Float32Array
    keys: Float32Array
    bias: FloatArray
    cap: float
    log_norm: FloatArray
    log_sums: FloatArray

    def log_of(self, row: IntArray, token: IntArray) -> FloatArray:
        """[n] log P0 of pairs (stored row, token)."""
        out = np.empty(len(row))
        for low in range(0, len(row), _PAIRS):
            part = slice(low, low + _PAIRS)
            product = np.einsum("nd,nd->n", self.hidden[row[part]], self.keys[token[part]], dtype=np.float64)
            out[part] = self.capped(product + self.bias[token[part]])
        return out - self.log_norm[row]

    def log_between(self, row: IntArray, token: IntArray) -> FloatArray:
        """[Q, U] log P0 of all pairs of stored rows [Q] with tokens [U]."""
        product = self.hidden[row].astype(np.float64) @ self.keys[token].astype(np.float64).T
        found: FloatArray = self.capped(product + self.bias[token]) - self.log_norm[row][:, None]
        return found

    def log_row(self, row: int) -> FloatArray:
        """[V] log P0 of one stored row."""
        found: FloatArray = self.capped(self.keys @ self.hidden[row] + self.bias) - self.log_norm[row]
        return found

    def capped(self, logits: FloatArray) -> FloatArray:
        """Logits after the soft cap."""
        return self.cap * np.tanh(logits / self.cap) if self.cap else logits

    @cached_property
    def coefficients(self) -> FloatArray:
        """[M, R] Chebyshev coefficients of log sums of P0^a in a, over `RANGE`."""
        from numpy.polynomial import chebyshev

        nodes = self.log_sums.shape[1]
        weights = chebyshev.chebvander(_unit(exponents(nodes)), nodes - 1)
        return np.asarray(np.linalg.solve(weights, self.log_sums.T), dtype=np.float64)

    def moments(self, a: float) -> FloatArray:
        """[R, 3] log of the sum of P0^a, and mean and mean square of log P0 under it, interpolated."""
        from numpy.polynomial import chebyshev

        low, high = RANGE
        coefficients = self.coefficients
        at, slope = _unit(np.array([a])), 2.0 / (high - low)
        value = chebyshev.chebval(at, coefficients)[:, 0]
        first = chebyshev.chebval(at, chebyshev.chebder(coefficients))[:, 0] * slope
        second = chebyshev.chebval(at, chebyshev.chebder(coefficients, 2))[:, 0] * slope**2
        return np.column_stack([value, first, np.maximum(second, 0.0) + first**2])


def exponents(nodes: int = NODES) -> FloatArray:
    """[M] the a at which sums of P0^a are tabled: Chebyshev points of `RANGE`."""
    low, high = RANGE
    points: FloatArray = low + (high - low) * (1 - np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)) / 2
    return points


def _unit(a: FloatArray) -> FloatArray:
    low, high = RANGE
    return 2 * (a - low) / (high - low) - 1


@dataclass(frozen=True, eq=False)
class BaseTransition:
    """P0 over all tokens, in sparse form.

    Attributes:
        row: [V] the stored row of each query, -1 where it has none.
        tokens: [R, top] the likeliest tokens of each stored row, likeliest first.
        log_p: [R, top] their log probabilities.
        log_scale: [R] what is added to `log_unigram` for all other tokens; -inf where nothing is left for them.
        log_unigram: [V] normalised.
        factors: the rows as logits, where they are kept exactly; `tokens` then say what is drawn outside a context.
    """

    row: IntArray
    tokens: Int32Array
    log_p: FloatArray
    log_scale: FloatArray
    log_unigram: FloatArray
    factors: Factors | None = None

    def __post_init__(self) -> None:
        vocab, (rows, top) = len(self.log_unigram), self.tokens.shape
        if len(self.row) != vocab or self.row.max(initial=-1) >= rows:
            raise ValueError(f"row must hold a stored row below {rows} or -1 for each of {vocab} tokens")
        if self.log_p.shape != (rows, top) or self.log_scale.shape != (rows,):
            raise ValueError(f"log_p must be [{rows}, {top}] and log_scale [{rows}], as tokens are")
        if top and not (self.tokens.min() >= 0 and self.tokens.max() < vocab):
            raise ValueError(f"tokens of rows must lie below {vocab}")

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.log_unigram)

    @property
    def positive(self) -> bool:
        """Has every token some probability after every query?"""
        if self.factors is not None:
            return True
        whole = self.tokens.shape[1] == self.vocab_size
        return bool(np.isfinite(self.log_p).all() and (whole or np.isfinite(self.log_scale).all()))

    @classmethod
    def flat(cls, vocab_size: int) -> BaseTransition:
        """Every token alike after every query.

        Raises:
            ValueError: the vocabulary is empty.
        """
        if vocab_size < 1:
            raise ValueError(f"a vocabulary has at least one token, got {vocab_size}")
        return cls.of_unigram(np.full(vocab_size, 1.0 / vocab_size))

    @classmethod
    def of_unigram(cls, unigram: ArrayLike) -> BaseTransition:
        """The same frequencies [V] after every query.

        Raises:
            ValueError: a frequency is not positive, or they do not sum to 1.
        """
        log = _log_unigram(unigram)
        empty = np.empty((0, 0))
        return cls(np.full(len(log), -1, np.int64), empty.astype(np.int32), empty, np.empty(0), log)

    @classmethod
    def from_rows(
        cls, queries: ArrayLike, rows: ArrayLike, unigram: ArrayLike | None = None, top: int | None = None
    ) -> BaseTransition:
        """From dense rows.

        Args:
            queries: [R] the token that each row belongs to.
            rows: [R, V] probabilities.
            unigram: [V] positive, of the tail and of queries without a row; None: the mean of the rows.
            top: how many tokens a row keeps; None: all of them, which is exact.

        Raises:
            ValueError: a row is no distribution, a query comes twice, or the unigram is not positive.
        """
        p, wanted = np.atleast_2d(np.asarray(rows, dtype=np.float64)), np.asarray(queries, dtype=np.int64)
        count, vocab = p.shape
        if wanted.shape != (count,) or len(np.unique(wanted)) < count:
            raise ValueError(f"queries must name {count} different tokens, one a row, got {wanted.tolist()[:10]}")
        wrong = np.flatnonzero(~(np.abs(p.sum(axis=1) - 1) <= 1e-6) | (p < 0).any(axis=1))
        if len(wrong):
            raise ValueError(
                f"row {wrong[0]} (query {wanted[wrong[0]]}) is no distribution: it sums to {p[wrong[0]].sum():.6g}"
            )
        common = p.mean(axis=0) if unigram is None else np.asarray(unigram, dtype=np.float64)
        kept = vocab if top is None else min(top, vocab)
        order = np.argsort(-p, axis=1, kind="stable")[:, :kept]
        with np.errstate(divide="ignore"):
            log_p = np.log(np.take_along_axis(p, order, axis=1))
        found = np.full(vocab, -1, np.int64)
        found[wanted] = np.arange(count)
        log = _log_unigram(common)
        return cls(found, order.astype(np.int32), log_p, tail_scale(order, log_p, log), log)

    @classmethod
    def from_transition(cls, transition: ArrayLike) -> BaseTransition:
        """From a square matrix P [V, V], kept exactly."""
        p = np.asarray(transition, dtype=np.float64)
        return cls.from_rows(np.arange(len(p)), p, np.full(len(p), 1.0 / len(p)))

    @property
    def rest(self) -> FloatArray:
        """[R] probability that each stored row leaves to tokens that it does not keep."""
        left: FloatArray = np.clip(1.0 - np.exp(self.log_p).sum(axis=1), 0.0, 1.0)
        return left

    def log_row(self, query: int) -> FloatArray:
        """[V] log P0[query, :]."""
        stored = int(self.row[query])
        if stored < 0:
            return self.log_unigram.copy()
        if self.factors is not None:
            return self.factors.log_row(stored)
        dense: FloatArray = self.log_unigram + self.log_scale[stored]
        dense[self.tokens[stored]] = self.log_p[stored]
        return dense

    def log_at(self, query: ArrayLike, token: ArrayLike) -> FloatArray:
        """[n] log P0 of pairs (query [n], token [n])."""
        from ccmc._logit.base_kernels import log_of_pairs

        asked, wanted = (np.atleast_1d(np.asarray(a, dtype=np.int64)) for a in (query, token))
        out = np.empty(len(asked))
        if self.factors is not None:
            stored = self.row[asked]
            own = stored >= 0
            out[own] = self.factors.log_of(stored[own], wanted[own])
            out[~own] = self.log_unigram[wanted[~own]]
            return out
        log_of_pairs(self.row, self.tokens, self.log_p, self.log_scale, self.log_unigram, asked, wanted, out)
        return out

    def log_between(self, query: ArrayLike, token: ArrayLike) -> FloatArray:
        """[Q, U] log P0 of all pairs of queries [Q] with tokens [U], no token twice."""
        from ccmc._logit.base_kernels import log_between

        asked, wanted = (np.atleast_1d(np.asarray(a, dtype=np.int64)) for a in (query, token))
        out = np.empty((len(asked), len(wanted)))
        if self.factors is None:
            log_between(self.row, self.tokens, self.log_p, self.log_scale, self.log_unigram, asked, wanted, out)
            return out
        stored = self.row[asked]
        out[stored < 0] = self.log_unigram[wanted]
        out[stored >= 0] = self.factors.log_between(stored[stored >= 0], wanted)
        return out

    def moments(self, a: float) -> FloatArray:
        """[R + 1, 3] sums over all tokens of P0^a: their log, and mean and mean square of log P0 under P0^a, a row.

        The last row is that of queries without one of their own. Tokens of probability 0 count for nothing (a > 0).
        """
        from ccmc._logit.base_kernels import moments_of_rows

        out = np.empty((len(self.tokens) + 1, 3))
        if self.factors is not None and RANGE[0] <= a <= RANGE[1]:
            out[:-1] = self.factors.moments(float(a))
            weight = np.exp(a * self.log_unigram)
            total = weight.sum()
            powers = [weight @ self.log_unigram**k / total for k in (1, 2)]
            out[-1] = np.log(total), *powers
            return out
        moments_of_rows(self.tokens, self.log_p, self.log_scale, self.log_unigram, float(a), out)
        return out

    @cached_property
    def frequent(self) -> IntArray:
        """[V] all tokens, those of the largest unigram first."""
        return np.argsort(-self.log_unigram, kind="stable")

    def save(self, path: str | PathLike[str]) -> None:
        """Write as safetensors."""
        tensors = {name: getattr(self, name) for name in _OWN}
        if self.factors is not None:
            tensors |= {f"factors.{name}": getattr(self.factors, name) for name in _FACTORS}
            tensors["factors.cap"] = np.array([self.factors.cap])
        save_tensors(path, "base-transition" if self.factors is None else "base-transition-factors", tensors)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> BaseTransition:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is something else.
        """
        try:
            found, factors = load_tensors(path, "base-transition", _OWN), None
        except ValueError:
            names = (*_OWN, *(f"factors.{name}" for name in _FACTORS), "factors.cap")
            found = load_tensors(path, "base-transition-factors", names)
            hidden, keys, bias, log_norm, log_sums = (found[f"factors.{name}"] for name in _FACTORS)
            cap = float(found["factors.cap"][0])
            factors = Factors(hidden.astype(np.float32), keys.astype(np.float32), bias, cap, log_norm, log_sums)
        row, tokens, log_p, log_scale, log_unigram = (found[name] for name in _OWN)
        return cls(row.astype(np.int64), tokens.astype(np.int32), log_p, log_scale, log_unigram, factors)


_OWN = ("row", "tokens", "log_p", "log_scale", "log_unigram")
_FACTORS = ("hidden", "keys", "bias", "log_norm", "log_sums")


def _log_unigram(unigram: ArrayLike) -> FloatArray:
    q = np.asarray(unigram, dtype=np.float64)
    if q.ndim != 1 or not len(q) or not (q > 0).all():
        first = int(np.argmin(q)) if q.size else 0
        raise ValueError(
            f"a unigram [V] gives every token some probability; token {first} has {q.flat[first] if q.size else 'none'}"
        )
    log: FloatArray = np.log(q) - np.log(q.sum())
    return log


def tail_scale(tokens: IntArray | Int32Array, log_p: FloatArray, log_unigram: FloatArray) -> FloatArray:
    """[R] log of (probability left by the kept tokens / unigram outside them); -inf where nothing is left.

    Args:
        tokens, log_p: [R, top] of the rows.
        log_unigram: [V].
    """
    left = np.maximum(1.0 - np.exp(log_p).sum(axis=1), 0.0)
    room = np.maximum(1.0 - np.exp(log_unigram[tokens]).sum(axis=1), 0.0)
    whole = tokens.shape[1] == len(log_unigram)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.log(left) - np.log(room)
    return np.where((room <= 1e-12) | whole, -np.inf, scale)
