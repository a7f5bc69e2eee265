"""What a surrogate is: fit on observations, predict on contexts, roll out from prompts."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
from scipy import sparse

from ccmc import Contexts
from harness.data.texts import Text, stack
from harness.surrogates._fitting.chain_walk import ChainTerms, walk
from harness.surrogates._fitting.decoding import Decoding, continue_one

if TYPE_CHECKING:
    from harness.surrogates._fitting.escape import Escape

__all__ = ["Decoding", "Observations", "PairMass", "Spilled", "Surrogate", "chain_rows", "pair_codes", "pair_mass"]

IntArray = np.ndarray[Any, np.dtype[np.int64]]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


class Spilled:
    """An array on disk, read anew each time it is asked for.

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
        return int(self.kept.shape[0])


def pair_codes(text: Text, vocab_size: int) -> IntArray:
    """[p] query * K + key of every pair that co-occurs in a context of the text, sorted."""
    query, key = text.pairs
    codes: IntArray = text.types[query] * vocab_size + text.types[key]
    return codes


def pair_mass(text: Text, targets: FloatArray, vocab_size: int) -> PairMass:
    """Sum targets [H, n, U] over the queries of a text, per (query token, key token)."""
    asks = np.zeros((len(text.types), len(text)))
    asks[text.query, np.arange(len(text))] = 1.0
    query, key = text.pairs
    return PairMass(pair_codes(text, vocab_size), np.matmul(asks, targets)[:, query, key])


@dataclass(frozen=True)
class Observations:
    """What surrogates are fitted to: the contexts along texts, and the mass that the model put on their tokens.

    Attributes:
        texts: training texts, in local ids.
        groups: the prompt that each text continues; folds never cut a prompt in two.
        wins: per text, the target mass per pair.
        vocab_size: K, size of the local vocabulary.
        distance_mass: per text [H, D], target mass per distance bucket; only for heads.
        targets: per text [n, U], the distributions themselves; only for language models.
        in_context_mass: per text [n], what the model gave to the context in all; only where surrogates may leave it.
        outside: per text [n, K] (CSR), what it gave to tokens outside the context; only where surrogates may leave it.
        place_mass: per text [H, D], target mass per bucket of the key's position; only where a fit asks for it.
        score_mass: per text [H], sum of attention x the score read off the weights; only where a fit asks for it.
        sink_odds: per text [H, n], log odds of the first position; only for heads.
        prior_sink_odds: the same as surrogates read off the weights predict them, by their name; only for heads.
    """

    texts: Sequence[Text]
    groups: Sequence[str]
    wins: Sequence[PairMass]
    vocab_size: int
    distance_mass: Sequence[FloatArray] = ()
    targets: Sequence[FloatArray] = ()
    in_context_mass: Sequence[FloatArray] = ()
    outside: Sequence[sparse.csr_array] = ()
    score_mass: Sequence[FloatArray] = ()
    place_mass: Sequence[FloatArray] = ()
    sink_odds: Sequence[FloatArray] = ()
    prior_sink_odds: Mapping[str, Sequence[FloatArray]] = field(default_factory=dict)

    @property
    def heads(self) -> int:
        return self.wins[0].heads

    def part(self, groups: set[str]) -> Observations:
        """The observations of some prompts only; nothing is said of the first position."""
        keep = [index for index, group in enumerate(self.groups) if group in groups]
        return Observations(
            [self.texts[i] for i in keep],
            [self.groups[i] for i in keep],
            [self.wins[i] for i in keep],
            self.vocab_size,
            [self.distance_mass[i] for i in keep] if self.distance_mass else (),
            [self.targets[i] for i in keep] if self.targets else (),
            [self.in_context_mass[i] for i in keep] if self.in_context_mass else (),
            [self.outside[i] for i in keep] if self.outside else (),
            [self.score_mass[i] for i in keep] if self.score_mass else (),
            [self.place_mass[i] for i in keep] if self.place_mass else (),
        )

    @cached_property
    def contexts(self) -> Contexts:
        """All contexts, one row each, over the local vocabulary."""
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


class Surrogate(ABC):
    """A stand-in for a model. `fit` returns self; what it learned ends in an underscore."""

    name: str
    open = False
    """Does it speak about all tokens, those outside the context too?"""
    vocab_size_: int
    """K, of an open surrogate."""

    def fit(self, observations: Observations) -> Self:
        """Learn from training texts. Surrogates that learn nothing only return themselves."""
        return self

    @abstractmethod
    def predict(self, text: Text) -> FloatArray:
        """Distributions over the types of a text, for each of its queries: [H, n, U], 0 outside the context.

        H is the number of heads, or 1 where all heads get the same.
        """

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        """One distribution while a text grows: [U].

        Args:
            types: [U] sorted types of the prompt; no other token can come.
            counts: [U] how often each has come so far.
            history: [t] columns of the tokens so far.
        """
        raise TypeError(f"{self.name} does not continue texts")

    def chain_terms(self, vocab_size: int) -> ChainTerms | None:
        """The surrogate as a mixture of chains, which compiled loops continue; None where it is none.

        Args:
            vocab_size: for surrogates that know no vocabulary: one more than the largest token.
        """
        return None

    def rollout(
        self,
        prompts: Sequence[IntArray],
        steps: Sequence[int],
        seed: int,
        decoding: Decoding,
        escape: Escape | None = None,
    ) -> list[IntArray]:
        """Continue prompts with tokens of their own contexts, or with an escape also with others.

        Args:
            prompts: local ids.
            steps: how many tokens to add to each.
            seed: of the samples; the continuation of a prompt does not depend on the other prompts.
            decoding: the strategy of the real model.
            escape: how often and where to it leaves the context; None: never. An open surrogate needs none.
        """
        uniforms = [np.random.default_rng([seed, index]).random(length) for index, length in enumerate(steps)]
        largest = max((int(prompt.max()) for prompt in prompts), default=0)
        size = largest + 1 if escape is None else escape.vocab_size
        terms = self.chain_terms(size) if decoding.beams is None else None
        if terms is not None:
            return walk(terms, prompts, uniforms, decoding, None if escape is None else escape.leaving())
        found = []
        for prompt, draws in zip(prompts, uniforms, strict=True):
            types, columns = self._table(prompt, escape)

            def follow(counts: FloatArray, history: IntArray, types: IntArray = types) -> FloatArray:
                inside = self.next_token(types, counts, history)
                return inside if escape is None or self.open else escape.mix(inside, counts, int(history[-1]))

            found.append(types[continue_one(follow, columns, len(types), draws, decoding)])
        return found

    def _table(self, prompt: IntArray, escape: Escape | None) -> tuple[IntArray, IntArray]:
        """The tokens that may come, and the prompt as columns of them."""
        if escape is None and not self.open:
            types, columns = np.unique(prompt, return_inverse=True)
            return types, columns
        size = escape.vocab_size if escape is not None else self.vocab_size_
        return np.arange(size, dtype=np.int64), np.asarray(prompt, dtype=np.int64)


def chain_rows(counts: FloatArray, logits: FloatArray) -> FloatArray:
    """p(j | context) proportional to m_j exp(theta_j), in the log domain: counts [n, U], logits [..., n, U]."""
    with np.errstate(divide="ignore"):
        log = np.log(counts) + logits
    log -= log.max(axis=-1, keepdims=True)
    weight: FloatArray = np.exp(log)
    weight /= weight.sum(axis=-1, keepdims=True)
    return weight
