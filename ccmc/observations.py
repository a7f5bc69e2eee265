"""Observations: contexts and what came next.

What came next is one token, or a distribution over the context's tokens (an attention row summed per token), or only
the sums of such distributions per (query, token). Every check names the index and the value it failed on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ccmc._data.arrays import (
    Sequences,
    as_floats,
    as_positive,
    as_tokens,
    canonical,
    flatten,
    stored_entries,
)
from ccmc._data.compact import Emitted, look_up_emitted, tokens_of_unit_vectors
from ccmc._data.pairs import Pairs
from ccmc._data.prefixes import Prefixes
from ccmc._data.types import Csr, FloatArray, IntArray
from ccmc.contexts import Contexts, PrefixContexts

# How far a target's or a query's mass may be off before it is an error; float32 attention sums drift this much.
_TARGET_TOLERANCE = 1e-5
_WINS_TOLERANCE = 1e-3


Entries: TypeAlias = tuple[IntArray, IntArray, FloatArray, FloatArray]
"""Every stored target: its row, its token, its mass, and the token's count in the row's context."""


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
            Dense rows of one 1 and else 0 are kept as tokens.
        weight: [n] non-negative weight of each observation, default 1.
        dropped: how many observations were left out when these were made.

    Raises:
        ValueError: a target is outside its context or does not sum to 1, or a weight is negative or not finite.
    """

    contexts: Contexts
    targets: IntArray | FloatArray | Csr | PairWins
    weight: FloatArray | None = None
    dropped: int = 0
    _emitted: Emitted | None = field(default=None, init=False, repr=False)
    """What a fit needs of one token per row, where checking the targets read it off the compact rows."""
    _checked: Entries | None = field(default=None, init=False, repr=False)
    """The entries of one token per row, where checking the targets made them."""

    def __post_init__(self) -> None:
        rows = len(self.contexts)
        weight = np.ones(rows) if self.weight is None else as_floats(np.asarray(self.weight), "weight")
        if weight.shape != (rows,):
            raise ValueError(f"weight must have shape ({rows},), got {weight.shape}")
        if not (weight.min(initial=0) >= 0 and weight.max(initial=0) < np.inf):
            at = int(np.argmax(~((weight >= 0) & (weight < np.inf))))
            raise ValueError(f"weight[{at}] is {weight[at]}: weights are non-negative and finite")
        if not isinstance(self.targets, PairWins):
            targets = _as_targets(self.contexts, self.targets)
            emitted = self._read_emitted(targets, None if self.weight is None else weight)
            if emitted is None:
                entries = _target_entries(self.contexts, targets)
                targets = _checked_targets(targets, entries)
                object.__setattr__(self, "_checked", entries if targets.ndim == 1 else None)
            object.__setattr__(self, "_emitted", emitted)
            object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "weight", weight)

    def _read_emitted(self, targets: IntArray | FloatArray | Csr, weight: FloatArray | None) -> Emitted | None:
        """What a fit needs of one token per row; None where each target has to be checked on its own."""
        rows = self.contexts.rows_when_checked
        if rows is None or targets.ndim != 1:
            return None
        return look_up_emitted(rows, np.asarray(targets, np.int64), weight)

    def __len__(self) -> int:
        return len(self.contexts)

    def __repr__(self) -> str:
        kind = "sums of targets" if isinstance(self.targets, PairWins) else "tokens" if self.hard else "distributions"
        return f"Observations({len(self)} over {self.contexts.vocab_size} tokens, targets: {kind})"

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
    def entries(self) -> Entries:
        """Every stored target as (row [t], token [t], its mass [t], the token's count in the row's context [t])."""
        if isinstance(self.targets, PairWins):
            raise ValueError("observations from wins do not hold the target of each row")
        if self._checked is not None:
            return self._checked
        return _target_entries(self.contexts, self.targets)

    @cached_property
    def numbers(self) -> IntArray:
        """[t] number of the pair (query, token) of each entry."""
        row, token, _, _ = self.entries
        return self.contexts.numbered_pairs.number(self.contexts.query[row], token)

    @cached_property
    def emitted(self) -> NDArray[np.integer[Any]]:
        """[n] number of each row's one token among its query's tokens, in the order of `Pairs.order`."""
        if self._emitted is not None:
            return self._emitted.numbers
        pairs = self.contexts.numbered_pairs
        sorted_numbers = self.numbers[pairs.order]
        sorted_numbers -= np.repeat(pairs.ptr[:-1], np.diff(pairs.query_ptr))
        return sorted_numbers

    @cached_property
    def wins(self) -> FloatArray:
        """[pairs] weighted target mass of each pair, in the order of `contexts.pairs()`."""
        if isinstance(self.targets, PairWins):
            return self.targets.values
        if self._emitted is not None:
            return self._emitted.wins
        row, _, mass, _ = self.entries
        weight = self.weights if self.hard else mass * self.weights[row]
        pairs = len(self.contexts.numbered_pairs.token)
        return np.bincount(self.numbers, weights=weight, minlength=pairs).astype(np.float64)

    @cached_property
    def log_count_mass(self) -> float:
        """Sum of weight x target x log count: what the log-likelihood holds beside the logits."""
        if isinstance(self.targets, PairWins):
            return self.targets.log_count_mass
        if self._emitted is not None:
            return self._emitted.log_count_mass
        row, _, mass, count = self.entries
        return float(np.sum(self.weights[row] * mass * np.log(count)))

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
        prefixes = Prefixes.of(tokens, offsets, vocab_size, as_positive(start, "start"), window)
        if not (prefixes.following_count >= 0).any():
            raise ValueError(f"no sequence is long enough for a prefix of length {start} and a token after it")
        unmet = np.flatnonzero(prefixes.following_count == 0)
        if len(unmet) and unseen == "raise":
            at = int(unmet[0]) + 1
            sequence = int(np.searchsorted(offsets, at, side="right")) - 1
            raise ValueError(
                f"sequence {sequence}, position {at - offsets[sequence]}: token {tokens[at]} is not in its context, so "
                'no chain can emit it; pass unseen="drop" to leave such tokens out'
            )
        if len(prefixes.positions) == 0:
            raise ValueError("no observation is left: every next token is outside its context")
        return cls(PrefixContexts(prefixes), prefixes.following, dropped=len(unmet))

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
        table = canonical(wins) if sparse.issparse(wins) else sparse.csr_array(as_floats(np.asarray(wins), "wins"))
        if table.shape != (size, size):
            raise ValueError(f"wins must have shape ({size}, {size}), got {table.shape}")
        query, token, mass = stored_entries(table)
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


def _counts_at(contexts: Contexts, rows: IntArray, tokens: IntArray) -> FloatArray:
    """How often token tokens[k] is in context rows[k]."""
    if isinstance(contexts, PrefixContexts) and tokens is contexts.prefixes.following:
        known: FloatArray = contexts.prefixes.following_count[contexts.prefixes.positions]
        return known
    if isinstance(contexts.counts, np.ndarray):
        dense: FloatArray = contexts.counts[rows, tokens]
        return dense
    from ccmc._data.rows import find_in_rows

    table = contexts.sparse_counts
    place = np.empty(len(rows), np.int64)
    find_in_rows(table.indptr.astype(np.int64), table.indices, rows.astype(np.int64), tokens, place)
    counts: FloatArray = np.where(place >= 0, table.data[place], 0.0)
    return counts


def _target_entries(contexts: Contexts, targets: IntArray | FloatArray | Csr) -> Entries:
    if isinstance(targets, np.ndarray) and targets.ndim == 1:
        row, token, mass = np.arange(len(contexts)), np.asarray(targets, np.int64), np.ones(len(contexts))
    else:
        row, token, mass = stored_entries(sparse.csr_array(targets))
    return row, token, mass, _counts_at(contexts, row, token)


def _as_targets(contexts: Contexts, targets: Any) -> IntArray | FloatArray | Csr:
    shape = (len(contexts), contexts.vocab_size)
    made: IntArray | FloatArray | Csr
    if sparse.issparse(targets):
        made = canonical(targets)
    elif np.ndim(targets) == 1:
        made = as_tokens(np.asarray(targets), contexts.vocab_size, "targets")
    else:
        dense = as_floats(np.asarray(targets), "targets")
        tokens = tokens_of_unit_vectors(dense) if dense.shape == shape else None
        made = dense if tokens is None else tokens  # the same targets, of which a fit reads one number a row
    if made.shape not in (shape, shape[:1]):
        raise ValueError(f"targets must have shape {shape} or {shape[:1]}, got {made.shape}")
    return made


def _checked_targets(checked: IntArray | FloatArray | Csr, entries: Entries) -> IntArray | FloatArray | Csr:
    row, token, mass, count = entries
    outside = count == 0
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(f"targets[{row[at]}]: token {token[at]} is not in its context, so no chain can emit it")
    if checked.ndim == 1:
        return checked
    bad = ~((mass >= 0) & (mass < np.inf))
    if bad.any():
        at = int(np.argmax(bad))
        raise ValueError(f"targets[{row[at]}] holds {mass[at]}: probabilities are non-negative and finite")
    total = np.bincount(row, weights=mass, minlength=checked.shape[0])
    off = np.abs(total - 1) > _TARGET_TOLERANCE
    if off.any():
        at = int(np.argmax(off))
        raise ValueError(f"targets[{at}] sum to {total[at]}, not to 1")
    if isinstance(checked, sparse.csr_array):
        scaled: Csr = sparse.csr_array(
            (checked.data / np.repeat(total, np.diff(checked.indptr)), checked.indices, checked.indptr),
            shape=checked.shape,
        )
        return scaled
    return checked / total[:, None]
