"""The rows of attention of one block of queries, and what is summed of them while they pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.attention import block_kernels
from harness.attention.blocks import Asked, Block

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Rows:
    """The attention of the heads of a layer in one block.

    Attributes:
        weight: [H, L, B] over the positions from 1 on, each query's summing to 1; 0 where a key is not seen.
        token: [H, u, B] the same summed per token, over the types seen so far.
        facts: [H, 5, B] logarithm of the normaliser; entropy over positions, and over tokens, in nats; mean logarithm
            of the count; weight of the most attended token.
        sink_odds: [H, B] log of the attention on position 0 over that on all others; `HIDDEN` where it is not seen.
    """

    weight: torch.Tensor
    token: torch.Tensor
    facts: torch.Tensor
    sink_odds: torch.Tensor


def arrays(*tensors: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    """Tensors on the processor, as compiled passes take them."""
    return [tensor.numpy() for tensor in tensors]


def softmax_(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Softmax over dimension 1, which overwrites the scores.

    Returns:
        [H, L, B] weights; [H, B] logarithm of the normaliser; [H, B] entropy, nats.
    """
    top = scores.amax(1, keepdim=True)
    weight = scores.sub_(top).exp()
    total = weight.sum(1, keepdim=True)
    expected = scores.mul_(weight).sum(1, keepdim=True).div_(total)
    log_total = total.log()
    return weight.div_(total), (log_total + top)[:, 0], (log_total - expected)[:, 0]


def weigh_(scores: torch.Tensor, block: Block) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Softmax over the keys that are seen, which overwrites the scores [H, L, B].

    Returns:
        [H, L, B] weights; [H, u, B] the same per type; [H, 5, B] facts about them, see `Rows`.
    """
    if scores.device.type == "cpu":
        token, facts = _nothing(scores, block)
        found = arrays(block.columns, block.log_counts, token, facts)
        block_kernels.softmax(scores.numpy(), *block.shape, *found)
        return scores, token, facts
    weight, normaliser, entropy = softmax_(block.hide(scores))
    token = block.per_token(weight)
    token_entropy = -(token * token.clamp(min=TINY).log_()).sum(1)
    mean_log = (token * block.log_counts).sum(1)
    return weight, token, torch.stack([normaliser, entropy, token_entropy, mean_log, token.amax(1)], 1)


def sum_(scores: torch.Tensor, block: Block, pairs: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    """The same, to add the weights up per pair of types and per distance; the scores are lost.

    Args:
        scores: [H, L, B].
        block: where they stand.
        pairs: [H, U, U] by query and key, in the order in which types come; weights are added.
        distance: float64 [H, T], weights are added.

    Returns:
        [H, 5, B] facts.
    """
    if scores.device.type == "cpu":
        token, facts = _nothing(scores, block)
        found = arrays(block.columns, block.log_counts, token, facts, block.queries, pairs, distance)
        block_kernels.sums(scores.numpy(), *block.shape, *found)
        return facts
    weight, token, facts = weigh_(scores, block)
    pairs[:, :, : block.met].index_add_(1, block.queries, token.transpose(1, 2))
    distance += block.by_distance(weight)
    return facts


def _nothing(scores: torch.Tensor, block: Block) -> tuple[torch.Tensor, torch.Tensor]:
    heads, _, width = scores.shape
    return scores.new_zeros(heads, block.met, width), scores.new_zeros(heads, 5, width)


def _sink_odds(asked: Asked, block: Block, facts: torch.Tensor) -> torch.Tensor:
    sink, normaliser = asked.sink_scores(block), facts[:, 0]
    finite = torch.isfinite(normaliser + facts[:, 1] + sink)
    if not bool(finite.all()):
        head, query = (int(i) for i in torch.nonzero(~finite)[0])
        where = f"layer {asked.call.layer}, head {(block.heads.start or 0) + head}, position {block.start + query}"
        raise ValueError(f"{where}: the attention scores are not finite")
    return block.where_sink_is_seen(sink - normaliser)


def rows(asked: Asked, block: Block) -> Rows:
    """The attention of one call in one block.

    Raises:
        ValueError: a score that is not finite; names layer, head and position.
    """
    weight, token, facts = weigh_(asked.scores(block), block)
    return Rows(weight, token, facts, _sink_odds(asked, block, facts))


def add_rows(
    asked: Asked, block: Block, pairs: torch.Tensor, distance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the attention of one call in one block to sums over a text.

    Args:
        asked: the queries and keys of all heads.
        block: some heads in some queries.
        pairs, distance: [H, U, U] and [H, T] of all heads, see `sum_`.

    Returns:
        facts [H, 5, B] and sink odds [H, B] of the block's heads, see `Rows`.

    Raises:
        ValueError: a score that is not finite; names layer, head and position.
    """
    facts = sum_(asked.scores(block), block, pairs[block.heads], distance[block.heads])
    return facts, _sink_odds(asked, block, facts)
