"""What surrogates are fitted to: contexts along texts, and the mass that the model put on their tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import IO, Any, Self

import numpy as np
from scipy import sparse

from ccmc import Contexts
from harness.data.texts import FloatArray, IntArray, Text, stack
from harness.surrogates.statistics import Statistics


class Spilled:
    """An array on disk, read anew each time.

    Args:
        file: an open binary file that may be read and appended to; it must outlive the array.
        array: what to keep.
    """

    def __init__(self, file: IO[bytes], array: np.ndarray[Any, Any]) -> None:
        self.file, self.shape, self.dtype = file, array.shape, array.dtype
        self.offset = file.seek(0, os.SEEK_END)
        file.write(np.ascontiguousarray(array).data)

    def read(self) -> np.ndarray[Any, Any]:
        """The array."""
        found = np.empty(self.shape, self.dtype)
        self.file.seek(self.offset)
        if self.file.readinto(found.reshape(-1).view(np.uint8).data) != found.nbytes:  # type: ignore[attr-defined]
            raise OSError("the sums of attention on disk are shorter than they were written")
        return found


@dataclass(frozen=True, slots=True)
class PairMass:
    """Target mass of one text, summed per (query, key) pair.

    Attributes:
        pair: [p] query * K + key, sorted, every pair that co-occurs in a context of the text.
        kept: [H, p] what the H heads (1 for a language model) gave to the pair in all; in memory or on disk.
    """

    pair: IntArray
    kept: np.ndarray[Any, Any] | Spilled

    @property
    def mass(self) -> np.ndarray[Any, Any]:
        """[H, p] the mass itself."""
        return self.kept.read() if isinstance(self.kept, Spilled) else self.kept

    @property
    def heads(self) -> int:
        """H."""
        return int(self.kept.shape[0])


def pair_codes(text: Text, vocab_size: int) -> IntArray:
    """[p] query * K + key of every pair that co-occurs in a context of the text, sorted."""
    query, key = text.pairs
    codes: IntArray = text.types[query] * vocab_size + text.types[key]
    return codes


def pair_mass(text: Text, targets: FloatArray, vocab_size: int) -> PairMass:
    """Sum targets [H, n, U] over the queries of a text, per (query token, key token)."""
    queries = np.zeros((len(text.types), len(text)))
    queries[text.query, np.arange(len(text))] = 1.0
    query, key = text.pairs
    return PairMass(pair_codes(text, vocab_size), np.matmul(queries, targets)[:, query, key])


@dataclass(frozen=True)
class Observations:
    """Token sequences, and the target mass on the tokens of their contexts.

    Every field but `vocab_size` holds one entry per text, or is empty.

    Attributes:
        texts: training texts, in local ids.
        groups: the prompt that each text continues; folds never cut a prompt in two.
        wins: the target mass per pair.
        vocab_size: K, size of the local vocabulary.
    """

    texts: Sequence[Text]
    groups: Sequence[str]
    wins: Sequence[PairMass]
    vocab_size: int

    @property
    def heads(self) -> int:
        """H, of the targets."""
        return self.wins[0].heads

    def part(self, groups: set[str]) -> Self:
        """The observations of some prompts only."""
        keep = [index for index, group in enumerate(self.groups) if group in groups]

        def kept(values: Any) -> Any:
            if isinstance(values, Mapping):
                return {name: kept(of_name) for name, of_name in values.items()}
            return [values[index] for index in keep] if len(values) else ()

        return replace(self, **{f.name: kept(getattr(self, f.name)) for f in fields(self) if f.name != "vocab_size"})

    @cached_property
    def statistics(self) -> list[Statistics]:
        """Per text, what a context says: counts, order, what followed the last tokens before. Computed when read."""
        return [Statistics(text) for text in self.texts]

    @cached_property
    def contexts(self) -> Contexts:
        """All contexts, one row each, over the local vocabulary: the counts and the query of each."""
        return stack(self.texts, self.vocab_size)

    @cached_property
    def pattern(self) -> sparse.csr_array:
        """[K, K] the pairs that co-occur; values of `pair_wins` are in its order."""
        return self.contexts.pairs()

    @cached_property
    def pair_wins(self) -> FloatArray:
        """[H, nnz] target mass per pair of the pattern, summed over the texts."""
        pattern = self.pattern
        rows = np.repeat(np.arange(self.vocab_size, dtype=np.int64), np.diff(pattern.indptr))
        known = rows * self.vocab_size + pattern.indices
        total = np.zeros((self.heads, len(known)))
        for win in self.wins:
            total[:, np.searchsorted(known, win.pair)] += win.mass
        return total


@dataclass(frozen=True)
class HeadObservations(Observations):
    """What heads attended to along texts. What only some fits read may be empty.

    Attributes:
        distance_mass: [H, D] attention per distance bucket.
        place_mass: [H, D] attention per bucket of the key's position.
        score_mass: [H] sum of attention x the score read off the weights.
        sink_odds: [H, n] log odds of the first position.
        prior_sink_odds: the same as surrogates read off the weights predict them, by their name.
    """

    distance_mass: Sequence[FloatArray] = ()
    place_mass: Sequence[FloatArray] = ()
    score_mass: Sequence[FloatArray] = ()
    sink_odds: Sequence[FloatArray] = ()
    prior_sink_odds: Mapping[str, Sequence[FloatArray]] = field(default_factory=dict)


@dataclass(frozen=True)
class NextTokenObservations(Observations):
    """What a language model predicted along texts.

    Attributes:
        targets: [n, U] its distributions over the context.
        in_context_mass: [n] what it gave to the context in all; empty where no surrogate may leave the context.
        outside: [n, K] (CSR) what it gave to tokens outside the context; empty where no surrogate may leave it.
    """

    targets: Sequence[FloatArray] = ()
    in_context_mass: Sequence[FloatArray] = ()
    outside: Sequence[sparse.csr_array] = ()
