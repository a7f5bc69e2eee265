"""`ccmc-weights`: the chain read off the weights of a head, without positions; nothing is fitted to attention."""

from __future__ import annotations

from collections.abc import Callable

import torch

from harness.attention.blocks import Block, View
from harness.attention.capture import key_heads, scores
from harness.attention.log_weights import LogWeights
from harness.attention.loop_terms import LoopTerms
from harness.attention.static_inputs import StaticHeads
from harness.core.registry import register
from harness.data.texts import FloatArray, IntArray
from harness.surrogates._fitting.static_scores import ReadOffWeights, of_static_sink


@register.surrogate(
    "ccmc-weights",
    of="heads",
    sees=("counts", "query", "weights"),
    parameters="0",
    rung=70,
    default=True,
    needs=("heads",),
    about="the chain read off the head's weights, without positions",
    cost="no fit",
    source="Ildiz et al., From Self-Attention to Markov Models, 2024",
)
class CCMCWeights(ReadOffWeights):
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

    def loop_terms(self) -> LoopTerms:
        return LoopTerms(self.heads, "token", "token", sink=of_static_sink(self.heads))

    def along(self, view: View) -> Callable[[Block], LogWeights]:
        call, sink = self.heads.at_start, self.heads.sink_type
        chosen = view.types if sink is None else torch.cat([view.types.new_tensor([sink]), view.types])
        key = call.key[:, chosen][self._key_head]  # [H, U, d], or [H, 1 + U, d] with the first position first
        query = call.query[:, view.types].mul(call.scaling).transpose(1, 2)  # [H, d, U]
        before = len(chosen) - len(view.types)

        def weights(block: Block) -> LogWeights:
            found = torch.bmm(key[block.heads, : block.met + before], query[block.heads][:, :, block.queries])
            cap = call.softcap
            found = found if cap is None else found.div_(cap).tanh_().mul_(cap)
            return LogWeights(found[:, before:], by_token=True, sink=found[:, 0] if before else None)

        # what is fitted on top of it need not compute it again
        return lambda block: block.shared.get(self.heads, "by token", lambda: weights(block))
