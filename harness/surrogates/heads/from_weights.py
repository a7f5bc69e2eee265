"""`ccmc-weights`, `pccmc-weights`, `shuffled-weights`: chains read off weights, nothing fitted to attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from harness.attention.blocks import Asked, Block, View
from harness.attention.capture import key_heads, scores
from harness.attention.log_weights import LogWeights
from harness.attention.static_inputs import StaticHeads
from harness.core.registry import register
from harness.surrogates._fitting.along import HeadSurrogate
from harness.surrogates.base import FloatArray, IntArray


def asked_along(heads: StaticHeads, view: View) -> Asked:
    """Queries and keys of static inputs along a text, asked once for all surrogates of a layer."""
    key = id(heads)
    if key not in view.memo:
        view.memo[key] = Asked.of(heads.of_text(view.text.tokens))
    asked: Asked = view.memo[key]
    return asked


class _Read(HeadSurrogate):
    """A surrogate that asks a layer's heads about tokens."""

    def __init__(self, heads: StaticHeads) -> None:
        self.heads = heads

    @property
    def device(self) -> torch.device:
        return self.heads.at_start.key.device


@register.surrogate(
    "ccmc-weights",
    of="heads",
    sees=("counts", "query", "weights"),
    parameters="0",
    rung=80,
    default=True,
    about="the chain read off the head's weights, without positions",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
class CCMCWeights(_Read):
    """theta[i, j] = the score of query token i and key token j at one position, with one static input per token.

    Args:
        heads: the layer's heads, asked per token.
    """

    def __init__(self, heads: StaticHeads) -> None:
        super().__init__(heads)
        call = heads.at_start
        self._key_head = key_heads(call.query.shape[0], call.key.shape[0]).to(call.key.device)

    def logits(self, query: IntArray, key: IntArray) -> FloatArray:
        """[H, len(query), len(key)] base logits of tokens given by local id."""
        call = self.heads.at_start
        found = scores(call.query[:, query], call.key[:, key], self._key_head, call.scaling, call.softcap)
        array: FloatArray = found.double().cpu().numpy()
        return array

    def pair_logits(self, query: IntArray, key: IntArray, block: int = 65_536) -> FloatArray:
        """[H, nnz] base logits of single pairs."""
        call = self.heads.at_start
        keys = call.key[self._key_head]
        parts = []
        for first in range(0, len(query), block):
            q, k = query[first : first + block], key[first : first + block]
            product = (call.query[:, q] * keys[:, k]).sum(-1) * call.scaling
            parts.append(product if call.softcap is None else call.softcap * torch.tanh(product / call.softcap))
        array: FloatArray = torch.cat(parts, -1).double().cpu().numpy()
        return array

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        call, sink = self.heads.at_start, self.heads.sink_type
        chosen = view.types if sink is None else torch.cat([view.types.new_tensor([sink]), view.types])
        key = call.key[:, chosen][self._key_head]  # [H, U, d], or [H, 1 + U, d] with the first position first
        query = call.query[:, view.types].mul(call.scaling).transpose(1, 2)  # [H, d, U]
        before = len(chosen) - len(view.types)
        place = self.name, id(self.heads)  # what is fitted on top of it need not ask again

        def of(block: Block) -> LogWeights:
            if place not in block.memo:
                found = torch.bmm(key[block.heads, : block.met + before], query[block.heads][:, :, block.queries])
                cap = call.softcap
                block.memo[place] = found if cap is None else found.div_(cap).tanh_().mul_(cap)
            found = block.memo[place]
            return LogWeights(found[:, before:], by_token=True, sink=found[:, 0] if before else None)

        return of


@register.surrogate(
    "pccmc-weights",
    of="heads",
    sees=("counts", "query", "distance", "weights"),
    parameters="0",
    rung=90,
    default=True,
    about="the chain read off the head's weights, with positions",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
class PCCMCWeights(_Read):
    """The same with positions, as the layer itself takes them in: rotation, window, learned ones. Exact at layer 0.

    Args:
        heads: the layer's heads, asked per token and position.
    """

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        key, sink, asked = id(self.heads), self.heads.sink_type is not None, asked_along(self.heads, view)

        def of(block: Block) -> LogWeights:
            if key not in block.memo:
                block.memo[key] = asked.scores(block), asked.sink_scores(block) if sink else None
            values, of_sink = block.memo[key]
            return LogWeights(values, by_token=False, sink=of_sink)

        return of


@register.surrogate(
    "shuffled-weights",
    of="heads",
    sees=("counts", "query", "weights"),
    parameters="0",
    control=True,
    rung=70,
    default=True,
    about="control: ccmc-weights of a head whose channels are permuted",
)
class ShuffledWeights(CCMCWeights):
    """Control: `ccmc-weights` of a head whose rows of Q and of K are permuted, each on its own.

    The rows of a head's query and key matrices are its channels. Permuted apart, they keep their sizes and lose what
    pairs them, so whatever the control explains is not the head's matching of tokens.

    Args:
        heads: the layer's heads, asked per token.
        seed: of the permutations.
    """

    def __init__(self, heads: StaticHeads, seed: int) -> None:
        rng, call = np.random.default_rng(seed), heads.at_start
        width = call.query.shape[-1]
        query = torch.stack([q[:, torch.as_tensor(rng.permutation(width))] for q in call.query])
        key = torch.stack([k[:, torch.as_tensor(rng.permutation(width))] for k in call.key])
        super().__init__(replace(heads, at_start=replace(call, query=query, key=key)))
