"""Contexts and observations: all that a chain needs to know of prompts.

A prompt acts on its next token through two things only: the counts of its tokens and its last token, the *query*
(Ildiz et al. 2024). An observation adds what came next: one token, or a distribution over the context's tokens (an
attention row summed per token). Counts are dense or sparse; every check names the index and the value it failed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ccmc._pairs import Pairs, number_pairs, pattern
from ccmc._types import Csr, FloatArray, IntArray

_NO_WINDOW = np.iinfo(np.int64).max
# How far a target's or a query's mass may be off before it is an error; float32 attention sums drift this much.
_TARGET_TOLERANCE = 1e-5
_WINS_TOLERANCE = 1e-3

Sequences: TypeAlias = Sequence[Sequence[int]] | Sequence[IntArray] | IntArray


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

    def __post_init__(self) -> None:
        counts = _canonical(self.counts) if sparse.issparse(self.counts) else np.asarray(self.counts)
        if counts.ndim != 2:
            raise ValueError(f"counts must have two dimensions [contexts, tokens], got shape {counts.shape}")
        if not sparse.issparse(counts):
            counts = _as_floats(counts, "counts")
        values = counts.data if isinstance(counts, sparse.csr_array) else counts
        # One pass for the usual case; the place of a fault is looked for only when there is one.
        if values.size and not (values.min() >= 0 and values.max() < np.inf):
            raise ValueError(_first_bad_count(counts))
        rows, vocab_size = counts.shape
        query = np.asarray(self.query)
        if query.shape != (rows,):
            raise ValueError(f"query must have shape ({rows},) to go with counts {counts.shape}, got {query.shape}")
        query = as_tokens(query, vocab_size, "query")
        empty = (np.diff(counts.indptr) == 0) if isinstance(counts, sparse.csr_array) else ~counts.any(axis=1)
        if empty.any():
            raise ValueError(f"context {int(np.argmax(empty))} is empty: all its counts are 0")
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "query", query)

    def __len__(self) -> int:
        return int(self.counts.shape[0])

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
    def numbered_pairs(self) -> Pairs:
        """The pairs that occur, found once and kept."""
        return number_pairs(self.sparse_counts, self.query)

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
        return _prefixes(tokens, offsets, vocab_size, start, np.diff(offsets), window)

    @classmethod
    def from_prompts(cls, prompts: Sequences, vocab_size: int, window: int | None = None) -> Contexts:
        """One context per prompt: all its tokens, or the last `window` of them."""
        tokens, offsets = flatten(prompts, vocab_size)
        length = np.diff(offsets)
        if (length == 0).any():
            raise ValueError(f"prompt {int(np.argmin(length))} is empty")
        kept = length if window is None else np.minimum(length, _positive(window, "window"))
        position = np.arange(len(tokens)) - np.repeat(offsets[1:] - kept, length)
        row = np.repeat(np.arange(len(length)), length)[position >= 0]
        shape = (len(length), vocab_size)
        counts = sparse.csr_array(sparse.coo_array((np.ones(len(row)), (row, tokens[position >= 0])), shape=shape))
        return cls(counts, tokens[offsets[1:] - 1])


@dataclass(frozen=True, eq=False)
class PairWins:
    """Target mass summed per pair: all that a fit needs of soft targets."""

    values: FloatArray
    """[pairs] mass, in the order of `Contexts.pairs()`."""
    log_count_mass: float = 0.0
    """Sum of target x log count, the part of the log-likelihood that no parameter touches; 0 when it is not known."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Contexts and what came next.

    Args:
        contexts: n contexts over K tokens.
        targets: int [n], the token that came next; or [n, K] dense or CSR, a distribution over the context's tokens.
        weight: [n] non-negative weight of each observation, default 1.
        dropped: how many observations were left out when these were made.

    Raises:
        ValueError: a target is outside its context or does not sum to 1, or a weight is negative or not finite.
    """

    contexts: Contexts
    targets: IntArray | FloatArray | Csr | PairWins
    weight: FloatArray | None = None
    dropped: int = 0

    def __post_init__(self) -> None:
        rows = len(self.contexts)
        weight = np.ones(rows) if self.weight is None else _as_floats(np.asarray(self.weight), "weight")
        if weight.shape != (rows,):
            raise ValueError(f"weight must have shape ({rows},), got {weight.shape}")
        bad = ~((weight >= 0) & (weight < np.inf))
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(f"weight[{at}] is {weight[at]}: weights are non-negative and finite")
        object.__setattr__(self, "weight", weight)
        if not isinstance(self.targets, PairWins):
            object.__setattr__(self, "targets", _checked_targets(self.contexts, self.targets))

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def weights(self) -> FloatArray:
        """[n] the weight of each observation."""
        assert self.weight is not None
        return self.weight

    @property
    def hard(self) -> bool:
        """Whether every target is one token."""
        return isinstance(self.targets, np.ndarray) and self.targets.ndim == 1

    def take(self, rows: IntArray | NDArray[np.bool_]) -> Observations:
        """The observations at `rows` (indices or mask); not possible where only sums per pair are known."""
        if isinstance(self.targets, PairWins):
            raise ValueError("observations from wins hold sums over rows and cannot be split by row")
        return Observations(self.contexts.take(rows), self.targets[rows], self.weights[rows])

    @cached_property
    def entries(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Every positive target as (row [t], entry of the contexts' CSR counts [t], target mass [t])."""
        if isinstance(self.targets, PairWins):
            raise ValueError("observations from wins do not hold the target of each row")
        return _target_entries(self.contexts, self.targets)

    @cached_property
    def wins(self) -> FloatArray:
        """[pairs] weighted target mass of each pair, in the order of `contexts.pairs()`."""
        if isinstance(self.targets, PairWins):
            return self.targets.values
        row, entry, mass = self.entries
        pairs = self.contexts.numbered_pairs
        number = pairs.ptr[self.contexts.query[row]] + pairs.local[entry]
        return np.bincount(number, weights=mass * self.weights[row], minlength=len(pairs.token)).astype(np.float64)

    @cached_property
    def log_count_mass(self) -> float:
        """Sum of weight x target x log count: what the log-likelihood holds beside the logits."""
        if isinstance(self.targets, PairWins):
            return self.targets.log_count_mass
        row, entry, mass = self.entries
        return float(np.sum(self.weights[row] * mass * np.log(self.contexts.sparse_counts.data[entry])))

    @classmethod
    def from_sequences(
        cls,
        sequences: Sequences,
        vocab_size: int,
        start: int = 1,
        unseen: str = "raise",
        window: int | None = None,
    ) -> Observations:
        """Every prefix of length >= start predicts the token after it.

        Args:
            sequences: token sequences of any lengths, or an int array [sequences, length].
            vocab_size: K.
            start: length of the shortest prefix, at least 1.
            unseen: what to do with a next token that is not in its context, which no chain can emit: "raise" or
                "drop" (`dropped` counts them).
            window: contexts hold the last `window` tokens only, or None.

        Raises:
            ValueError: a token is out of range; a next token is unseen and may not be dropped; nothing is left.
        """
        if unseen not in ("raise", "drop"):
            raise ValueError(f'unseen must be "raise" or "drop", got {unseen!r}')
        tokens, offsets = flatten(sequences, vocab_size)
        length = np.diff(offsets)
        contexts = _prefixes(tokens, offsets, vocab_size, start, length - 1, window)
        rows = np.maximum(length - start, 0)
        sequence = np.repeat(np.arange(len(length)), rows)
        position = start + np.arange(len(contexts)) - np.repeat(np.cumsum(rows) - rows, rows)
        following = tokens[offsets[sequence] + position]
        seen = _find(contexts, np.arange(len(contexts)), following) >= 0
        if seen.all():
            return cls(contexts, following)
        if unseen == "raise":
            at = int(np.argmin(seen))
            raise ValueError(
                f"sequence {sequence[at]}, position {position[at]}: token {following[at]} is not in its context, so "
                'no chain can emit it; pass unseen="drop" to leave such tokens out'
            )
        if not seen.any():
            raise ValueError("no observation is left: every next token is outside its context")
        kept = cls(contexts.take(seen), following[seen])
        return cls(kept.contexts, kept.targets, dropped=int((~seen).sum()))

    @classmethod
    def from_wins(cls, contexts: Contexts, wins: ArrayLike | Csr, log_count_mass: float = 0.0) -> Observations:
        """Soft targets of which only the sum per (query, token) was kept, as streamed from an attention head.

        Only for targets that are positive on their whole context, as attention rows are.

        Args:
            contexts: the n contexts.
            wins: [K, K] dense or CSR, target mass summed over the contexts of the query (row) for each token. Each
                row sums to the number of its query's contexts; small drift (float32 sums) is scaled away.
            log_count_mass: sum of target x log count over everything, where known; it only shifts log-likelihoods.

        Raises:
            ValueError: wins are negative, outside the contexts, or do not sum to the number of contexts.
        """
        size = contexts.vocab_size
        table = _canonical(wins) if sparse.issparse(wins) else sparse.csr_array(_as_floats(np.asarray(wins), "wins"))
        if table.shape != (size, size):
            raise ValueError(f"wins must have shape ({size}, {size}), got {table.shape}")
        query, token, mass = _entries(table)
        pairs = contexts.numbered_pairs
        number = pairs.find(query, token)
        bad = ~((mass >= 0) & (mass < np.inf)) | (number < 0)
        if bad.any():
            at = int(np.argmax(bad))
            why = "wins are non-negative and finite" if number[at] >= 0 else "the token is in no context of the query"
            raise ValueError(f"wins[{query[at]}, {token[at]}] is {mass[at]}: {why}")
        values = np.zeros(len(pairs.token))
        values[number] = mass
        rows = np.diff(pairs.query_ptr).astype(np.float64)
        return cls(contexts, PairWins(scaled_wins(pairs, values, rows), log_count_mass))


def scaled_wins(pairs: Pairs, values: FloatArray, mass: FloatArray) -> FloatArray:
    """Scale wins [pairs] so that each query's sum is `mass` [K] exactly; more than float32 drift is an error."""
    total = np.bincount(pairs.query, weights=values, minlength=len(mass))
    bad = np.abs(total - mass) > _WINS_TOLERANCE * mass
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"wins of query {at} sum to {total[at]}, but its contexts weigh {mass[at]} together")
    scale = np.divide(mass, total, out=np.ones_like(mass), where=total > 0)
    scaled: FloatArray = values * scale[pairs.query]
    return scaled


def as_tokens(tokens: NDArray[Any], vocab_size: int, name: str) -> IntArray:
    """Integers in 0 ... K - 1 as int64, or ValueError naming index and value."""
    if tokens.size == 0:
        return tokens.astype(np.int64)
    if tokens.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {tokens.dtype}")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        at = np.unravel_index(int(np.argmax((tokens < 0) | (tokens >= vocab_size))), tokens.shape)
        place = ", ".join(str(int(k)) for k in at)
        raise ValueError(f"{name}[{place}] is {tokens[at]}: outside the vocabulary 0 ... {vocab_size - 1}")
    return np.ascontiguousarray(tokens, dtype=np.int64)


def flatten(sequences: Sequences, vocab_size: int) -> tuple[IntArray, IntArray]:
    """All tokens one after another and the offsets [sequences + 1] at which each sequence begins."""
    if vocab_size < 1:
        raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
    if isinstance(sequences, np.ndarray) and sequences.ndim != 2:
        raise ValueError(f"sequences as an array must be [sequences, length], got shape {sequences.shape}")
    parts = [np.asarray(sequence) for sequence in sequences]
    for s, part in enumerate(parts):
        if part.ndim != 1:
            raise ValueError(f"sequence {s} must be one-dimensional, got shape {part.shape}")
        as_tokens(part, vocab_size, f"sequences[{s}]")
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    tokens = np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
    return tokens, offsets


def _prefixes(
    tokens: IntArray, offsets: IntArray, vocab_size: int, start: int, stop: IntArray, window: int | None
) -> Contexts:
    """Contexts of the prefixes of length start ... stop[s] of each sequence s."""
    from ccmc._rows import fill_prefixes

    _positive(start, "start")
    width = _NO_WINDOW if window is None else _positive(window, "window")
    rows = np.maximum(stop - start + 1, 0)
    if rows.sum() == 0:
        raise ValueError(f"no sequence is long enough for a prefix of length {start}")
    indptr = np.zeros(int(rows.sum()) + 1, np.int64)
    indices, data = np.empty(0, np.int32), np.empty(0)
    fill_prefixes(tokens, offsets, start, stop, width, vocab_size, indptr, indices, data)
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1])
    fill_prefixes(tokens, offsets, start, stop, width, vocab_size, indptr, indices, data)
    sequence = np.repeat(np.arange(len(rows)), rows)
    length = start + np.arange(len(sequence)) - np.repeat(np.cumsum(rows) - rows, rows)
    query = tokens[offsets[sequence] + length - 1]
    counts = sparse.csr_array((data, indices, indptr), shape=(len(sequence), vocab_size))
    return Contexts(counts, query)


def _positive(value: int, name: str) -> int:
    if int(value) != value or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value}")
    return int(value)


def _as_floats(values: NDArray[Any], name: str) -> FloatArray:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers, got {values.dtype}")
    return np.ascontiguousarray(values, dtype=np.float64)


def _canonical(matrix: Any) -> Csr:
    """Float64 CSR with sorted columns, no duplicates and no stored zeros; the caller's matrix is never changed."""
    csr: Csr = sparse.csr_array(matrix, dtype=np.float64)
    if not csr.has_canonical_format or (csr.data == 0).any():
        csr = csr.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
    return csr


def _first_bad_count(counts: FloatArray | Csr) -> str:
    row, token, values = _entries(sparse.csr_array(counts))
    at = int(np.argmax(~((values >= 0) & (values < np.inf))))
    return f"counts[{row[at]}, {token[at]}] is {values[at]}: counts are non-negative and finite"


def _entries(table: Any) -> tuple[IntArray, IntArray, FloatArray]:
    """Row, column and value of every stored entry."""
    row = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    return row, table.indices.astype(np.int64), table.data


def _find(contexts: Contexts, rows: IntArray, tokens: IntArray) -> IntArray:
    """Entry of the CSR counts that holds token tokens[k] of row rows[k], or -1."""
    from ccmc._rows import find_in_rows

    counts = contexts.sparse_counts
    place = np.empty(len(rows), np.int64)
    find_in_rows(counts.indptr.astype(np.int64), counts.indices, rows.astype(np.int64), tokens, place)
    return place


def _target_entries(contexts: Contexts, targets: IntArray | FloatArray | Csr) -> tuple[IntArray, IntArray, FloatArray]:
    if isinstance(targets, np.ndarray) and targets.ndim == 1:
        row = np.arange(len(contexts))
        return row, _find(contexts, row, targets.astype(np.int64)), np.ones(len(row))
    row, token, mass = _entries(sparse.csr_array(targets))
    return row, _find(contexts, row, token), mass


def _checked_targets(contexts: Contexts, targets: Any) -> IntArray | FloatArray | Csr:
    shape = contexts.counts.shape
    checked: IntArray | FloatArray | Csr
    if sparse.issparse(targets):
        checked = _canonical(targets)
    else:
        checked = np.asarray(targets)
        if checked.ndim == 1:
            checked = as_tokens(checked, contexts.vocab_size, "targets")
        else:
            checked = _as_floats(checked, "targets")
    if checked.shape not in (shape, shape[:1]):
        raise ValueError(f"targets must have shape {shape} or {shape[:1]}, got {checked.shape}")
    row, entry, mass = _target_entries(contexts, checked)
    outside = entry < 0
    if outside.any():
        at = int(np.argmax(outside))
        token = checked[row[at]] if checked.ndim == 1 else _entries(sparse.csr_array(checked))[1][at]
        raise ValueError(f"targets[{row[at]}]: token {token} is not in its context, so no chain can emit it")
    if checked.ndim == 1:
        return checked
    bad = ~((mass >= 0) & (mass < np.inf))
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"targets[{row[at]}] holds {mass[at]}: probabilities are non-negative and finite")
    total = np.bincount(row, weights=mass, minlength=shape[0])
    off = np.abs(total - 1) > _TARGET_TOLERANCE
    if off.any():
        at = int(np.argmax(off))
        raise ValueError(f"targets[{at}] sum to {total[at]}, not to 1")
    if isinstance(checked, sparse.csr_array):
        scaled: Csr = sparse.csr_array(
            (checked.data / np.repeat(total, np.diff(checked.indptr)), checked.indices, checked.indptr), shape=shape
        )
        return scaled
    return checked / total[:, None]
