"""`shuffled-weights`: control. What a chain explains that pairs no token with another."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import numpy as np

from harness.attention.loop_terms import LoopTerms, permuted
from harness.attention.static_inputs import StaticHeads
from harness.core.registry import register
from harness.core.seeds import derive_seed
from harness.surrogates.base import Ingredients
from harness.surrogates.heads.ccmc_weights import CCMCWeights


@register.surrogate(
    "shuffled-weights",
    of="heads",
    sees=("counts", "query", "weights"),
    parameters="0",
    control=True,
    rung=60,
    default=True,
    needs=("heads",),
    about="control: ccmc-weights of a head whose channels are permuted",
    cost="no fit",
    source="this project",
)
class ShuffledWeights(CCMCWeights):
    """`ccmc-weights` of a head whose rows of Q and of K are permuted, each on its own.

    The rows of a head's query and key matrices are its channels. Permuted apart, they keep their sizes and lose what
    pairs them, so whatever the control explains is not the head's matching of tokens.

    Args:
        heads: the layer's heads, asked per token.
        seed: of the permutations.
    """

    def __init__(self, heads: StaticHeads, seed: int) -> None:
        rng, call = np.random.default_rng(seed), heads.at_start
        width = call.query.shape[-1]
        of_query = np.stack([rng.permutation(width) for _ in call.query])
        of_key = np.stack([rng.permutation(width) for _ in call.key])
        query, key = permuted(call.query, of_query), permuted(call.key, of_key)
        super().__init__(replace(heads, at_start=replace(call, query=query, key=key)))
        self._unpermuted, self._orders = heads, (of_query, of_key)

    def loop_terms(self) -> LoopTerms:
        return replace(super().loop_terms(), static=self._unpermuted, channels=self._orders)

    @classmethod
    def make(cls, given: Ingredients) -> Self:
        """With permutations of its own, whatever else the seed is used for."""
        return super().make(replace(given, seed=derive_seed(given.seed, cls.name)))
