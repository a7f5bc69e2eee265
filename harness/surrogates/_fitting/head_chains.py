"""Chains read off attention heads, used as they are to say the next token.

A head's static chain tells which tokens of the context it looks at; a head that copies what it looks at makes it a
prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.attention.capture import key_heads
from harness.attention.static_inputs import StaticHeads
from harness.data.texts import FloatArray, IntArray, Text
from harness.surrogates.base import chain_rows


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
