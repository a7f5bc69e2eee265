"""What is said about the attention of one block of queries: log weights of tokens or positions, before counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from harness.attention.blocks import Block, View

NO_VALUES = torch.empty(0, 0, 0)
SINK_ODDS = "sink odds"  # of log weights, by which they are shared in a block


@dataclass(frozen=True, eq=False)
class LogWeights:
    """Log weights of one block, before counts: the sum of their parts, of which some may be missing.

    Attributes:
        values: [H, u, B] per token seen so far, to be multiplied by counts, or [H, L, B] per position; H may be 1 where
            all heads get the same, 0 where there are none. Keys that a query does not see may hold anything.
        by_token: which of the two.
        scale: [H] a factor of the values; of positions only.
        profile: [H, T] per distance, or [1, T] where all heads get the same; of positions only.
        place: [H, T] per position of the key; of positions only.
        change: [H, U, U] per pair of tokens, in the order in which they come.
        sink: [H, B] log weight of the first position as a state of its own; None where nothing is said about it.
        sink_odds: [H, B] its log odds against all others instead, where these do not follow from the weights.
    """

    values: torch.Tensor
    by_token: bool
    scale: torch.Tensor | None = None
    profile: torch.Tensor | None = None
    place: torch.Tensor | None = None
    change: torch.Tensor | None = None
    sink: torch.Tensor | None = None
    sink_odds: torch.Tensor | None = None

    def summed(self, block: Block) -> torch.Tensor:
        """[H, u, B] or [H, L, B] log weights with counts, hugely negative where a key is not seen."""
        values = self.values if self.scale is None else self.values * self.scale[:, None, None]
        parts = [values] if len(values) else []
        if self.profile is not None:
            parts.append(block.of_distance(self.profile))
        if self.place is not None:
            parts.append(self.place[:, block.low : block.stop, None].repeat(1, 1, block.stop - block.start))
        if self.change is not None:
            change = of_queries(self.change, block)
            parts.append(change if self.by_token else block.spread(change))
        if self.by_token:
            parts.append(block.log_counts)
        whole = sum(parts[1:], parts[0])
        return whole if self.by_token else block.hide(whole.clone() if whole is self.values else whole)


def sink_odds(given: LogWeights, block: Block) -> torch.Tensor | None:
    """[H, B] log odds of the first position that follow from log weights; None where nothing is said about it."""
    if given.sink is None:
        return None
    return block.where_sink_is_seen(given.sink - torch.logsumexp(given.summed(block), 1))


def of_queries(tables: torch.Tensor, block: Block) -> torch.Tensor:
    """Look tables of types up at every query: [H, U, U] by query and key -> [H, u, B]."""
    return tables.index_select(1, block.queries)[:, :, : block.met].transpose(1, 2).contiguous()


def on(view: View, values: np.ndarray[Any, Any]) -> torch.Tensor:
    """An array as float32 on the device of the view."""
    return torch.as_tensor(values, dtype=torch.float32, device=view.types.device)
