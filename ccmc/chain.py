"""Context-conditioned Markov chains: the model.

A chain has logits theta[i, j], the query i as the row. After a context with counts m and query i it emits

    p(j | m, i) = m_j exp(theta[i, j]) / sum_k m_k exp(theta[i, k]),

so tokens outside the context have probability 0, and a constant added to a row, or a factor on the counts, changes
nothing. With rows normalised, exp(theta) is the *base transition matrix* P. Everything is computed in the log domain.

`CCMC` holds the K x K logits. `AttentionCCMC` holds keys and queries whose products are the logits, as an attention
head does, and never forms K x K numbers.

Source: Ildiz et al. 2024, for the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from os import PathLike
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from ccmc._data.arrays import as_tokens
from ccmc._data.storage import load_tensors, save_tensors
from ccmc._data.types import FloatArray, IntArray
from ccmc.contexts import Contexts
from ccmc.normalise import log_normalised, log_sums, normalised
from ccmc.observations import Observations

# Numbers held at once while scores are gathered: 32 MB.
_CHUNK = 1 << 22
_ROW_SUM_TOLERANCE = 1e-6
# Differences of logits up to here are finite.
_LARGEST_LOGIT = 1e300
Counts = TypeVar("Counts")


class Chain(ABC):
    """What every chain can do, given its logits at any (query, token)."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """K, the number of tokens."""

    @abstractmethod
    def rows(self, query: IntArray) -> FloatArray:
        """Logits [n, K] of the given queries [n]."""

    @abstractmethod
    def at(self, query: IntArray, token: IntArray) -> FloatArray:
        """Logits [n] at the given (query, token)."""

    @abstractmethod
    def block(self, tokens: IntArray) -> FloatArray:
        """Logits [n, n] between the given tokens [n], query as the row."""

    def next_token(self, counts: Counts, query: ArrayLike) -> Counts:
        """Distribution of the next token.

        Args:
            counts: [n, K] counts of the contexts, dense or scipy CSR; or [K] for one context.
            query: [n] last tokens; or one int.

        Returns:
            Probabilities of the same shape and kind as `counts`.

        Raises:
            ValueError: counts or query are malformed (see `Contexts`), or K differs from the chain's.

        Source: Ildiz et al. 2024.
        """
        given: Any = counts
        if not sparse.issparse(given) and np.ndim(given) == 1:
            if np.ndim(query) != 0:
                raise ValueError(f"one context needs one query, got query of shape {np.shape(query)}")
            one: Any = self.next_token(np.asarray(given)[None], np.asarray(query)[None])
            result: Counts = one[0]
            return result
        contexts = Contexts(given, np.asarray(query))
        self._check(contexts)
        answer: Any
        if isinstance(contexts.counts, sparse.csr_array):
            table = contexts.counts
            data = np.exp(self._log_entries(contexts))
            kind = sparse.csr_matrix if isinstance(given, sparse.spmatrix) else sparse.csr_array
            answer = kind((data, table.indices.copy(), table.indptr.copy()), shape=table.shape)
        else:
            answer = np.empty(contexts.counts.shape)
            step = max(1, _CHUNK // self.vocab_size)
            for first in range(0, len(contexts), step):
                part = slice(first, first + step)
                answer[part] = normalised(self.rows(contexts.query[part]), contexts.counts[part])
        return answer  # type: ignore[no-any-return]

    def log_likelihood(self, observations: Observations) -> float:
        """Sum of weight x target x log p over all observations, in nats.

        For observations from wins the sum of target x log count is the one given with them (0 if none).
        """
        contexts = observations.contexts
        self._check(contexts)
        pairs = contexts.numbered_pairs
        theta = self.at(pairs.query, pairs.token)
        wins = observations.wins
        won = float(wins[wins > 0] @ theta[wins > 0])
        return won + observations.log_count_mass - float(observations.weights @ self._log_normalisers(contexts))

    def entropy(self, contexts: Contexts) -> FloatArray:
        """Entropy [n] of the next token after each context, in nats."""
        self._check(contexts)
        log_p = self._log_entries(contexts)
        terms = np.where(log_p > -np.inf, np.exp(log_p) * np.where(log_p > -np.inf, log_p, 0), 0)
        return -np.add.reduceat(terms, contexts.sparse_counts.indptr[:-1])

    def entropy_rate(self, path: ArrayLike, start: int = 1, window: int | None = None) -> float:
        """Mean entropy of the next token along a path, in nats per token.

        Args:
            path: [T] tokens.
            start: length of the first prefix that counts.
            window: contexts hold the last `window` tokens only, or None.

        Returns:
            The mean over prefixes of length start ... T of the entropy of the token that comes after.
        """
        tokens = as_tokens(np.asarray(path), self.vocab_size, "path")
        if tokens.ndim != 1 or len(tokens) < start:
            raise ValueError(f"path must be one sequence of at least {start} tokens, got shape {tokens.shape}")
        total, step = 0.0, max(1, _CHUNK // len(np.unique(tokens)))
        for first in range(start, len(tokens) + 1, step):
            last = min(first + step - 1, len(tokens))
            contexts = Contexts.from_sequences([tokens[:last]], self.vocab_size, first, window)
            total += float(self.entropy(contexts).sum())
        return total / (len(tokens) - start + 1)

    def _check(self, contexts: Contexts) -> None:
        if contexts.vocab_size != self.vocab_size:
            raise ValueError(f"counts have {contexts.vocab_size} tokens but the chain has {self.vocab_size}")

    def _at_entries(self, contexts: Contexts) -> FloatArray:
        """Logits at every entry of the CSR counts."""
        counts = contexts.sparse_counts
        return self.at(np.repeat(contexts.query, np.diff(counts.indptr)), counts.indices.astype(np.int64))

    def _log_entries(self, contexts: Contexts) -> FloatArray:
        """Log-probability at every entry of the CSR counts."""
        counts = contexts.sparse_counts
        return log_normalised(self._at_entries(contexts), counts.data, counts.indptr[:-1])

    def _log_normalisers(self, contexts: Contexts) -> FloatArray:
        """Log of sum_k m_k exp(theta[i, k]) for each context."""
        counts = contexts.sparse_counts
        return log_sums(self._at_entries(contexts), counts.indptr[:-1], counts.data)


class CCMC(Chain):
    """A chain with its logits written out.

    Args:
        logits: [K, K] finite numbers, row = query; each row is normalised to log-probabilities.

    Raises:
        ValueError: not square, or a logit is not finite or passes 1e300.

    Source: Ildiz et al. 2024.
    """

    def __init__(self, logits: ArrayLike) -> None:
        theta = np.array(logits, dtype=np.float64)
        if theta.ndim != 2 or theta.shape[0] != theta.shape[1] or theta.shape[0] == 0:
            raise ValueError(f"logits must be a square matrix [K, K], got shape {theta.shape}")
        if not np.isfinite(theta).all():
            row, column = np.argwhere(~np.isfinite(theta))[0]
            raise ValueError(f"logits[{row}, {column}] is {theta[row, column]}: logits are finite")
        if np.abs(theta).max() > _LARGEST_LOGIT:
            row, column = np.unravel_index(int(np.abs(theta).argmax()), theta.shape)
            raise ValueError(f"logits[{row}, {column}] is {theta[row, column]}: logits are at most {_LARGEST_LOGIT:g}")
        self._logits = log_normalised(theta)
        self._logits.flags.writeable = False

    @classmethod
    def from_transition(cls, transition: ArrayLike) -> Self:
        """The chain with base transition matrix P [K, K]: positive, rows summing to 1.

        Raises:
            ValueError: names the row that has an entry that is not positive, or that does not sum to 1.
        """
        P = np.asarray(transition, dtype=np.float64)
        if P.ndim != 2 or P.shape[0] != P.shape[1]:
            raise ValueError(f"transition must be a square matrix [K, K], got shape {P.shape}")
        bad = ~(np.isfinite(P) & (P > 0))
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ValueError(f"row {row} of transition has {P[row, column]} at column {column}: entries are positive")
        total = P.sum(axis=1)
        off = np.abs(total - 1) > _ROW_SUM_TOLERANCE
        if off.any():
            row = int(np.argmax(off))
            raise ValueError(f"row {row} of transition sums to {total[row]}, not to 1")
        return cls(np.log(P))

    @property
    def vocab_size(self) -> int:
        """K, the number of tokens."""
        return len(self._logits)

    @property
    def logits(self) -> FloatArray:
        """[K, K] log of the base transition matrix; read-only."""
        return self._logits

    @property
    def transition(self) -> FloatArray:
        """[K, K] base transition matrix P; row i is the law of the next token when every token counts once."""
        return np.exp(self._logits)

    def rows(self, query: IntArray) -> FloatArray:
        """Logits [n, K] of the given queries [n]."""
        return self._logits[query]

    def at(self, query: IntArray, token: IntArray) -> FloatArray:
        """Logits [n] at the given (query, token)."""
        return self._logits[query, token]

    def block(self, tokens: IntArray) -> FloatArray:
        """Logits [n, n] between the given tokens [n], query as the row."""
        return self._logits[np.ix_(tokens, tokens)]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the chain as a safetensors file."""
        save_tensors(path, "CCMC", {"logits": np.ascontiguousarray(self._logits)})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a chain that `save` wrote; the logits come back bit by bit."""
        stored = load_tensors(path, "CCMC", ("logits",))["logits"]
        chain = cls(stored)
        if np.allclose(chain._logits, stored, rtol=0, atol=1e-9):
            # Normalising what is normalised moves the last bits.
            stored.flags.writeable = False
            chain._logits = stored
        return chain

    def __repr__(self) -> str:
        return f"CCMC(vocab_size={self.vocab_size})"


class AttentionCCMC(Chain):
    """A chain whose logits are products: theta[i, j] = queries[i] . keys[j]. Nothing K x K is ever formed.

    Args:
        keys: [K, d] finite numbers, one row per token as a member of the context.
        queries: [K, d] finite numbers, one row per token as the query.

    Raises:
        ValueError: the shapes differ, a number is not finite, or products may pass 1e300.

    Source: Ildiz et al. 2024.
    """

    def __init__(self, keys: ArrayLike, queries: ArrayLike) -> None:
        self._keys = np.array(keys, dtype=np.float64, order="C")
        self._queries = np.array(queries, dtype=np.float64, order="C")
        if self._keys.ndim != 2 or self._keys.shape != self._queries.shape or self._keys.size == 0:
            raise ValueError(
                f"keys and queries must both be [K, d], got shapes {self._keys.shape} and {self._queries.shape}"
            )
        for name, values in (("keys", self._keys), ("queries", self._queries)):
            if not np.isfinite(values).all():
                row, column = np.argwhere(~np.isfinite(values))[0]
                raise ValueError(f"{name}[{row}, {column}] is {values[row, column]}: {name} are finite")
            values.flags.writeable = False
        key, query = float(np.abs(self._keys).max()), float(np.abs(self._queries).max())
        if key > 0 and query > _LARGEST_LOGIT / key / self._keys.shape[1]:
            raise ValueError(f"keys reach {key:g} and queries {query:g}: their products may pass {_LARGEST_LOGIT:g}")

    @property
    def vocab_size(self) -> int:
        """K, the number of tokens."""
        return len(self._keys)

    @property
    def keys(self) -> FloatArray:
        """[K, d]; read-only."""
        return self._keys

    @property
    def queries(self) -> FloatArray:
        """[K, d]; read-only."""
        return self._queries

    def rows(self, query: IntArray) -> FloatArray:
        """Logits [n, K] of the given queries [n]; not normalised."""
        return self._queries[query] @ self._keys.T

    def at(self, query: IntArray, token: IntArray) -> FloatArray:
        """Logits [n] at the given (query, token); not normalised."""
        scores = np.empty(len(query))
        step = max(1, _CHUNK // self._keys.shape[1])
        for first in range(0, len(query), step):
            part = slice(first, first + step)
            np.einsum("nd,nd->n", self._queries[query[part]], self._keys[token[part]], out=scores[part])
        return scores

    def block(self, tokens: IntArray) -> FloatArray:
        """Logits [n, n] between the given tokens [n], query as the row; not normalised."""
        return self._queries[tokens] @ self._keys[tokens].T

    def to_ccmc(self) -> CCMC:
        """The same chain with its K x K logits written out."""
        return CCMC(self._queries @ self._keys.T)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the chain as a safetensors file."""
        save_tensors(path, "AttentionCCMC", {"keys": self._keys, "queries": self._queries})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a chain that `save` wrote."""
        stored = load_tensors(path, "AttentionCCMC", ("keys", "queries"))
        return cls(stored["keys"], stored["queries"])

    def __repr__(self) -> str:
        return f"AttentionCCMC(vocab_size={self.vocab_size}, width={self._keys.shape[1]})"
