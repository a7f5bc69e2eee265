"""A convex mixture of chains of heads and of the counts, its weights by expectation-maximisation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates._fitting.chain_walk import ChainTerms
from harness.surrogates._fitting.head_chains import HeadChain
from harness.surrogates.base import Fact, NextTokenSurrogate, chain_rows
from harness.surrogates.observations import NextTokenObservations

TOLERANCE = 1e-7
ROUNDS = 500


class HeadMixture(NextTokenSurrogate):
    """sum_h w_h p_h(j | context), one term of which may be the counts.

    Args:
        chains: the chains of the heads, the best in training first.
        with_counts: is the share of the counts one of the terms?
    """

    def __init__(self, chains: Sequence[HeadChain], with_counts: bool) -> None:
        self.chains, self.with_counts = list(chains), with_counts

    weights_: FloatArray
    """[H], or [H + 1] with that of the counts last; sums to 1."""

    def fit(self, observations: NextTokenObservations) -> Self:
        terms = len(self.chains) + self.with_counts
        self.weights_ = np.full(terms, 1.0 / terms)
        if terms == 1:
            return self
        parts, masses = [], []
        for text, target in zip(observations.texts, observations.targets, strict=True):
            held = target > 0
            parts.append(self._terms(text)[:, held].astype(np.float32))
            masses.append(target[held])
        self.weights_ = em_weights(np.concatenate(parts, axis=1), np.concatenate(masses))
        return self

    def extra_rows(self) -> Iterable[Fact]:
        for chain, weight in zip(self.chains, self.weights_, strict=False):
            yield Fact("mixture_weight", float(weight), {"layer": chain.layer, "head": chain.head})
        if self.with_counts:
            yield Fact("mixture_weight", float(self.weights_[-1]))

    def _terms(self, text: Text) -> FloatArray:
        """[H, n, U] the distribution of each term."""
        terms = [chain.predict(text) for chain in self.chains]
        if self.with_counts:
            terms.append(text.counts / text.counts.sum(axis=1, keepdims=True))
        return np.stack(terms)

    def predict(self, text: Text) -> FloatArray:
        return np.tensordot(self.weights_, self._terms(text), axes=1)[None]

    def chain_terms(self, vocab_size: int) -> ChainTerms:
        used = [(float(w), chain) for w, chain in zip(self.weights_, self.chains, strict=False) if w > 0]
        if not used:  # the counts alone
            return ChainTerms.counts_alone(vocab_size)
        return ChainTerms(
            np.array([w for w, _ in used]),
            np.stack([chain.query for _, chain in used]),
            np.stack([chain.key for _, chain in used]),
            np.array([chain.softcap or 0.0 for _, chain in used]),
            counts_weight=float(self.weights_[-1]) if self.with_counts else 0.0,
        )

    def next_token(self, types: IntArray, counts: FloatArray, history: IntArray) -> FloatArray:
        active = np.flatnonzero(counts)
        query, keys, here = types[history[-1:]], types[active], counts[active]
        used = [(w, chain) for w, chain in zip(self.weights_, self.chains, strict=False) if w > 0]
        inside = sum((w * chain_rows(here, chain.logits(query, keys)[0]) for w, chain in used), np.zeros(len(active)))
        if self.with_counts:
            inside = inside + self.weights_[-1] * here / here.sum()
        p = np.zeros(len(types))
        p[active] = inside / inside.sum()
        return p


def em_weights(terms: np.ndarray[Any, Any], mass: FloatArray) -> FloatArray:
    """Weights of a mixture that maximise sum_e mass_e log sum_h w_h terms_he, by expectation-maximisation.

    Args:
        terms: [H, E] what each term gives to the tokens that have mass.
        mass: [E] their mass.

    Returns:
        [H] weights, not negative, with sum 1. Those below 1e-6 end at 0.

    Source: Dempster, Laird and Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977.
    """
    weights = np.full(len(terms), 1.0 / len(terms))
    total, last = mass.sum(), -np.inf
    for _ in range(ROUNDS):
        mixed = np.maximum(weights.astype(terms.dtype) @ terms, np.finfo(np.float32).tiny)
        value = float(mass @ np.log(mixed)) / total
        weights = weights * (terms @ (mass / mixed).astype(terms.dtype)).astype(float) / total
        weights /= weights.sum()
        if value - last < TOLERANCE:
            break
        last = value
    weights[weights < 1e-6] = 0.0
    cleaned: FloatArray = weights / weights.sum()
    return cleaned
