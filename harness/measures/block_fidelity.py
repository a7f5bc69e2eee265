"""How close surrogates of heads are to attention, in one block of queries: the measures of `fidelity`, in float32.

`tests/harness/test_blocks.py` holds them against `fidelity` row by row.
"""

from __future__ import annotations

import torch

from harness.sources.blocks import Block, Rows
from harness.surrogates.along import Predicted

TIE = 1e-6  # relative; what float32 cannot tell apart is tied
_MATTERS = 1e-10  # attention below it adds nothing to a divergence, whatever the prediction


class Truth:
    """The attention of one block, and what all comparisons with it share.

    Args:
        rows: of the block.
        block: the block itself.
    """

    def __init__(self, rows: Rows, block: Block) -> None:
        self.rows, self.block = rows, block
        token = rows.token
        self.log_token = token.clamp(min=torch.finfo(token.dtype).tiny).log()
        self.top = token >= token.amax(1, keepdim=True) * (1.0 - TIE)  # [H, U, B]
        odds = rows.sink_odds
        self.rest, self.log_sink, self.log_rest = torch.sigmoid(-odds), _log_sigmoid(odds), _log_sigmoid(-odds)

    def compare(self, found: Predicted) -> dict[str, torch.Tensor]:
        """kl, kl_position, total_variation, top_token and, where the sink is predicted, kl_with_sink: each [H, B]."""
        rows, block = self.rows, self.block
        log_token = self._exact_logs(found)
        divergence = (rows.token * (self.log_token - log_token)).sum(1).clamp_(min=0.0)
        if found.by_token:  # within a token, every position is as likely
            cross = (rows.token * (log_token - block.log_counts.clamp(min=0.0))).sum(1)
        else:
            cross = (rows.weight * found.log_weight).sum(1)
        chosen = found.token >= found.token.amax(1, keepdim=True) * (1.0 - TIE)
        measures = {
            "kl": divergence,
            "kl_position": (-rows.entropy - cross).clamp_(min=0.0),
            "total_variation": 0.5 * (rows.token - found.token).abs_().sum(1),
            "top_token": (self.top & chosen).float().sum(1) / chosen.float().sum(1),
        }
        if found.sink_odds is not None:
            odds = found.sink_odds
            apart = (1.0 - self.rest) * (self.log_sink - _log_sigmoid(odds))
            apart = apart + self.rest * (self.log_rest - _log_sigmoid(-odds))
            measures["kl_with_sink"] = apart.clamp_(min=0.0) + self.rest * divergence
        return measures

    def _exact_logs(self, found: Predicted) -> torch.Tensor:
        """[H, U, B] log probabilities of tokens, in float64 where float32 lost one that matters."""
        tiny = torch.finfo(found.token.dtype).tiny
        if found.by_token or not bool(((found.token <= tiny) & (self.rows.token > _MATTERS)).any()):
            return found.log_token
        exact = self.block.per_token(found.log_weight.double().exp())
        logs: torch.Tensor = torch.where(self.rows.token > 0, exact.log(), 0.0).float()
        return logs


def _log_sigmoid(odds: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.logsigmoid(odds)
