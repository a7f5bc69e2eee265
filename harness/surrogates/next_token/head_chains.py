"""`ccmc-head`, `ccmc-mixture`: chains read off attention heads, used as they are to say the next token.

A head's static chain tells which tokens of the context it looks at; a head that copies what it looks at makes it a
prediction. `ccmc-head` is the single chain that predicts the training texts best, `ccmc-mixture` a convex mixture of
the best ones and of the counts, its weights by expectation-maximisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from harness.attention.capture import key_heads
from harness.attention.static_inputs import StaticHeads
from harness.core.registry import register
from harness.data.texts import Text
from harness.surrogates._fitting.chain_walk import ChainTerms
from harness.surrogates.base import FloatArray, IntArray, Observations, Surrogate, chain_rows

TOLERANCE = 1e-7
ROUNDS = 500


@dataclass(frozen=True, slots=True)
class HeadChain:
    """theta[i, j] = query_i . key_j (capped where the head caps), for one head: query and key [K, d], scaled."""

    layer: int
    head: int
    query: FloatArray
    key: FloatArray
    softcap: float | None

    def logits(self, query: IntArray, key: IntArray) -> FloatArray:
        """[len(query), len(key)] base logits of tokens by local id."""
        score: FloatArray = self.query[query] @ self.key[key].T
        return score if self.softcap is None else self.softcap * np.tanh(score / self.softcap)

    def predict(self, text: Text) -> FloatArray:
        """[n, U] distributions over the context of each query."""
        return chain_rows(text.counts, self.logits(text.types, text.types)[text.query])


def head_chains(layers: Mapping[int, StaticHeads]) -> list[HeadChain]:
    """The chains of all heads of some layers, in their order."""
    chains = []
    for layer, heads in sorted(layers.items()):
        call = heads.at_start
        query = call.query.double().cpu().numpy() * call.scaling
        key = call.key.double().cpu().numpy()
        chains += [
            HeadChain(layer, head, query[head], key[group], call.softcap)
            for head, group in enumerate(key_heads(len(query), len(key)).tolist())
        ]
    return chains


def single_losses(chains: Sequence[HeadChain], texts: Sequence[Text], targets: Sequence[FloatArray]) -> FloatArray:
    """[H] cross-entropy of each chain, nats per query, where soft targets [n, U] are the model's distributions."""
    queries = sum(len(text) for text in texts)
    losses = np.zeros(len(chains))
    for text, target in zip(texts, targets, strict=True):
        held = target > 0
        mass = target[held]
        for index, chain in enumerate(chains):
            with np.errstate(divide="ignore"):
                losses[index] -= mass @ np.log(chain.predict(text)[held])
    return losses / queries


@register.surrogate(
    "ccmc-head",
    of="next-token",
    sees=("counts", "query", "weights"),
    parameters="0",
    rollout=True,
    rung=130,
    about="the chain of the single head that predicts the training texts best",
)
@register.surrogate(
    "ccmc-mixture",
    of="next-token",
    sees=("counts", "query", "weights"),
    parameters="heads",
    rollout=True,
    rung=140,
    about="a mixture of the chains of heads and of counts",
)
class HeadMixture(Surrogate):
    """sum_h w_h p_h(j | context), one term of which may be the counts.

    Args:
        chains: the chains of the heads, the best in training first.
        with_counts: is the share of the counts one of the terms?
    """

    def __init__(self, name: str, chains: Sequence[HeadChain], with_counts: bool) -> None:
        self.name, self.chains, self.with_counts = name, list(chains), with_counts

    weights_: FloatArray
    """[H], or [H + 1] with that of the counts last; sums to 1."""

    def fit(self, observations: Observations) -> Self:
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
