"""`ccmc-weights`, `pccmc-weights`, `shuffled-weights`: chains read off weights, nothing fitted to attention."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from harness.sources.heads import StaticHeads, rotate, scores
from harness.surrogates.base import FloatArray, IntArray, Surrogate, chain_rows
from harness.surrogates.distance import position_rows
from harness.texts import Text


class CCMCWeights(Surrogate):
    """theta[i, j] = the score of query token i and key token j without rotation, with one static input per token.

    Args:
        heads: the layer's queries and keys per token.
    """

    name = "ccmc-weights"

    def __init__(self, heads: StaticHeads) -> None:
        self.heads = heads

    def logits(self, query: IntArray, key: IntArray) -> FloatArray:
        """[H, len(query), len(key)] base logits of tokens given by local id."""
        h = self.heads
        found = scores(h.query[:, query], h.key[:, key], h.key_head, h.scaling, h.softcap)
        array: FloatArray = found.double().cpu().numpy()
        return array

    def pair_logits(self, query: IntArray, key: IntArray, block: int = 65_536) -> FloatArray:
        """[H, nnz] base logits of single pairs."""
        h = self.heads
        keys = h.key[h.key_head]
        parts = []
        for first in range(0, len(query), block):
            q, k = query[first : first + block], key[first : first + block]
            product = (h.query[:, q] * keys[:, k]).sum(-1) * h.scaling
            parts.append(product if h.softcap is None else h.softcap * torch.tanh(product / h.softcap))
        array: FloatArray = torch.cat(parts, -1).double().cpu().numpy()
        return array

    def predict(self, text: Text) -> FloatArray:
        return chain_rows(text.counts, self.logits(text.types[text.query], text.types))


class PCCMCWeights(Surrogate):
    """The same with positions: queries and keys are turned by the layer's own rotation. Exact in the first layer.

    Args:
        heads: the layer's queries and keys per token.
    """

    name = "pccmc-weights"

    def __init__(self, heads: StaticHeads) -> None:
        self.heads = heads

    def predict(self, text: Text) -> FloatArray:
        h = self.heads
        asked, shown = text.positions, np.arange(text.first, len(text.tokens))
        query = rotate(h.query[:, text.tokens[asked]], h.cos[asked], h.sin[asked])
        key = rotate(h.key[:, text.tokens[shown]], h.cos[shown], h.sin[shown])
        found = scores(query, key, h.key_head, h.scaling, h.softcap)
        return text.per_token(position_rows(found.double().cpu().numpy(), text))


class ShuffledWeights(CCMCWeights):
    """Control: `ccmc-weights` of a head whose rows of Q and of K are permuted, each on its own.

    The rows of a head's query and key matrices are its channels. Permuted apart, they keep their sizes and lose what
    pairs them, so whatever the control explains is not the head's matching of tokens.

    Args:
        heads: the layer's queries and keys per token.
        seed: of the permutations.
    """

    name = "shuffled-weights"

    def __init__(self, heads: StaticHeads, seed: int) -> None:
        rng = np.random.default_rng(seed)
        width = heads.query.shape[-1]
        query = torch.stack([q[:, torch.as_tensor(rng.permutation(width))] for q in heads.query])
        key = torch.stack([k[:, torch.as_tensor(rng.permutation(width))] for k in heads.key])
        super().__init__(replace(heads, query=query, key=key))
