"""Contexts: what a chain needs to know of a prompt.

A prompt acts on its next token through two things only: the counts of its tokens and its last token, the *query*
(Ildiz et al. 2024). Counts are dense or sparse; every check names the index and the value it failed on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ccmc._data.arrays import Sequences, as_floats, as_tokens, canonical, flatten
from ccmc._data.compact import CompactRows, compact_dense, compact_small_integers, compact_sparse
from ccmc._data.counts import check_counts, prefix_counts, prompt_counts
from ccmc._data.pairs import Pairs, pattern
from ccmc._data.prefixes import Prefixes
from ccmc._data.types import Csr, FloatArray, IntArray

# Numbers in a dense table from which checks are compiled, and what they read is kept for the fit.
_LARGE = 1 << 20


@dataclass(frozen=True, eq=False)
class Contexts:
    """Counts and queries of n contexts over a vocabulary of K tokens.

    Args:
        counts: [n, K] how often each token is in each context, dense or scipy CSR; any non-negative numbers, because
            scaling a row changes nothing. Copied only where the type or the order of entries has to change.
        query: [n] last token of each context, 0 ... K - 1.

    Raises:
        ValueError: a shape, count, query or empty context is wrong; the message names index and value.
    """

    counts: FloatArray | Csr
    query: IntArray
    rows_when_checked: CompactRows | None = field(default=None, init=False, repr=False)
    """What a fit reads, where checking the counts made it; see `compact`."""

    def __post_init__(self) -> None:
        counts = canonical(self.counts) if sparse.issparse(self.counts) else np.asarray(self.counts)
        if counts.ndim != 2:
            raise ValueError(f"counts must have two dimensions [contexts, tokens], got shape {counts.shape}")
        if not sparse.issparse(counts):
            counts = as_floats(counts, "counts")
        rows, vocab_size = counts.shape
        query = np.asarray(self.query)
        if query.shape != (rows,):
            raise ValueError(f"query must have shape ({rows},) to go with counts {counts.shape}, got {query.shape}")
        query = as_tokens(query, vocab_size, "query")
        rows = None
        if isinstance(counts, np.ndarray) and counts.size >= _LARGE:
            rows = compact_small_integers(query, counts)
        if rows is None:
            check_counts(counts)
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "query", query)
        object.__setattr__(self, "rows_when_checked", rows)

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} contexts over {self.vocab_size} tokens)"

    @property
    def vocab_size(self) -> int:
        """K, the number of tokens."""
        return int(self.counts.shape[1])

    @cached_property
    def sparse_counts(self) -> Csr:
        """[n, K] the counts as CSR with sorted columns and no stored zeros."""
        if isinstance(self.counts, sparse.csr_array):
            return self.counts
        return sparse.csr_array(self.counts)

    @cached_property
    def compact(self) -> CompactRows:
        """The counts as a fit reads them."""
        rows = self.rows_when_checked
        if rows is None and isinstance(self.counts, np.ndarray):
            rows = compact_dense(self.query, self.counts)
        return compact_sparse(self.query, self.sparse_counts) if rows is None else rows

    @cached_property
    def numbered_pairs(self) -> Pairs:
        """The pairs that occur, found once and kept."""
        return self.compact.pairs

    def pairs(self) -> Csr:
        """[K, K] ones where the token (column) is in some context of the query (row); columns sorted."""
        return pattern(self.numbered_pairs)

    def take(self, rows: IntArray | NDArray[np.bool_]) -> Contexts:
        """The contexts at `rows` (indices or mask)."""
        return Contexts(self.counts[rows], self.query[rows])

    @classmethod
    def from_sequences(
        cls, sequences: Sequences, vocab_size: int, start: int = 1, window: int | None = None
    ) -> Contexts:
        """Every prefix of length start, start + 1, ... of every sequence, the whole sequence included.

        Args:
            sequences: token sequences of any lengths, or an int array [sequences, length].
            vocab_size: K.
            start: length of the shortest prefix.
            window: count only the last `window` tokens of a prefix (a sliding layer), or None.

        Returns:
            Sparse contexts, one row per prefix, in the order of the sequences.
        """
        tokens, offsets = flatten(sequences, vocab_size)
        return cls(*prefix_counts(tokens, offsets, vocab_size, start, np.diff(offsets), window))

    @classmethod
    def from_prompts(cls, prompts: Sequences, vocab_size: int, window: int | None = None) -> Contexts:
        """One context per prompt: all its tokens, or the last `window` of them."""
        return cls(*prompt_counts(*flatten(prompts, vocab_size), vocab_size, window))


class PrefixContexts(Contexts):
    """The prefixes of sequences whose next token is in its prefix; the counts are written out only on request.

    Args:
        prefixes: the sequences, checked by their maker.
    """

    def __init__(self, prefixes: Prefixes) -> None:
        object.__setattr__(self, "prefixes", prefixes)

    prefixes: Prefixes

    @cached_property
    def query(self) -> IntArray:
        """[n] last token of each context."""
        return self.prefixes.query

    @cached_property
    def counts(self) -> Csr:
        """[n, K] the counts, written out."""
        return self.prefixes.counts()

    def __len__(self) -> int:
        return len(self.prefixes.positions)

    @property
    def vocab_size(self) -> int:
        """K, the number of tokens."""
        return self.prefixes.vocab_size

    @cached_property
    def numbered_pairs(self) -> Pairs:
        """The pairs that occur, found without writing out what need not be."""
        return self.prefixes.pairs() if self.prefixes.streamed else self.compact.pairs
