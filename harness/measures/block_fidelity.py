"""How close surrogates of heads are to attention, in one block of queries: the measures of `fidelity`, in float32.

`tests/harness/test_blocks.py` holds them against `fidelity` row by row.
"""

from __future__ import annotations

import torch

from harness.sources import block_kernels
from harness.sources.blocks import Block, Rows
from harness.surrogates.along import Predicted

TIE = 1e-6  # relative; what float32 cannot tell apart is tied
_MATTERS = 1e-10  # attention below it adds nothing to a divergence, whatever the prediction
_TINY = torch.finfo(torch.float32).tiny


class Truth:
    """The attention of one block, and what all comparisons with it share.

    Args:
        rows: of the block.
        block: the block itself.
    """

    def __init__(self, rows: Rows, block: Block) -> None:
        self.rows, self.block = rows, block
        token = rows.token
        self.token_entropy = -(token * token.clamp(min=_TINY).log_()).sum(1)  # [H, B]
        self.log_counts = (token * block.counts.clamp(min=1.0).log_()).sum(1)
        best, self.where = token.max(1, keepdim=True)
        self.top = _above(token, best * (1.0 - TIE))  # [H, u, B]
        self.tied = bool((self.top.sum(1) > 1.5).any())
        odds = rows.sink_odds
        self.rest, self.log_sink, self.log_rest = torch.sigmoid(-odds), _log_sigmoid(odds), _log_sigmoid(-odds)

    def compare(self, found: Predicted) -> dict[str, torch.Tensor]:
        """kl, kl_position, total_variation, top_token and, where the sink is predicted, kl_with_sink: each [H, B]."""
        rows = self.rows
        assert found.cross is not None
        if found.by_token:  # within a token, every position is as likely
            cross = found.cross
            cross_position = cross - self.log_counts
        else:
            cross = (rows.token * self._logs(found)).sum(1)
            cross_position = found.cross
        divergence = (found.log_total - self.token_entropy - cross).clamp_(min=0.0)
        common, best, there = self.shared(found.token, (-found.log_total).exp())
        measures = {
            "kl": divergence,
            "kl_position": (found.log_total - rows.entropy - cross_position).clamp_(min=0.0),
            "total_variation": (1.0 - common).clamp_(min=0.0),
            "top_token": self._right(found, best, there),
        }
        if found.sink_odds is not None:
            odds = found.sink_odds
            apart = (1.0 - self.rest) * (self.log_sink - _log_sigmoid(odds))
            apart = apart + self.rest * (self.log_rest - _log_sigmoid(-odds))
            measures["kl_with_sink"] = apart.clamp_(min=0.0) + self.rest * divergence
        return measures

    def shared(self, token: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a prediction and the attention have in common, and the likeliest type.

        Args:
            token: [H, u, B] weights; H may be 1.
            share: [H, B] what makes them sum to 1.

        Returns:
            [H, B] each: the sum of the smaller of the two, the largest weight, the weight of the most attended type.
        """
        if token.device.type != "cpu":
            return self._shared(token, share)
        where = self.where[:, 0]
        common, best, there = (torch.zeros(where.shape) for _ in range(3))
        given = (token, share, self.rows.token, where, common, best, there)
        block_kernels.shared(*(values.numpy() for values in given))
        return common, best, there

    def _shared(self, token: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same by torch, on any device."""
        token = token.expand_as(self.rows.token)
        common = torch.minimum(token * share[:, None], self.rows.token).sum(1)
        return common, token.amax(1), token.gather(1, self.where)[:, 0]

    def _right(self, found: Predicted, best: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """[H, B] chance that the likeliest token is a most attended one; ties are broken at random."""
        bound = best * (1.0 - TIE)
        if not found.ties and not self.tied:
            return _above(there, bound)
        chosen = _above(found.token.expand_as(self.top), bound[:, None])
        return (chosen * self.top).sum(1) / chosen.sum(1)

    def _logs(self, found: Predicted) -> torch.Tensor:
        """[H, u, B] logarithms of the weights of tokens, in float64 where float32 lost one that matters."""
        lost = _above(-found.token, torch.tensor(-2.0 * _TINY)).mul_(self.rows.token)
        if not bool(lost.sum() > _MATTERS):
            return found.token.clamp(min=_TINY).log_()
        shifted = self.block.hide(found.values) - found.top[:, None]
        exact = self.block.per_token(shifted.double().exp())
        return torch.where(self.rows.token > 0, exact.log(), 0.0).float()


def _above(values: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
    """1 where values are larger, 0 elsewhere; several times faster than by way of truth values."""
    return (values - bound).sign_().clamp_(min=0.0)


def _log_sigmoid(odds: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.logsigmoid(odds)
