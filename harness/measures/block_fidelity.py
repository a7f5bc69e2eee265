"""How close surrogates of heads are to attention, block by block: the measures of `fidelity`, in float32.

`tests/harness/test_blocks.py` holds them against `fidelity` row by row.
"""

from __future__ import annotations

import torch

from harness.attention.block_rows import TINY, Rows, arrays
from harness.attention.blocks import Block
from harness.attention.log_weights import NO_VALUES, LogWeights
from harness.core.registry import register
from harness.measures import judge_kernels
from harness.measures.judge_kernels import MATTERS, TIE

register.measure(
    "kl_position",
    unit="nats",
    better="lower",
    absolute=1e-5,
    label="KL over positions",
    about="KL divergence over positions instead of tokens, nats per query",
)
register.measure(
    "kl_with_sink",
    unit="nats",
    better="lower",
    absolute=1e-5,
    label="KL with sink",
    about="the same as kl with the first position kept as a state of its own",
)


class Comparison:
    """Surrogates of a layer against its attention along a text.

    Args:
        heads: H.
        queries: n.
        device: of the attention.

    Attributes:
        truth: [H, 6, n] facts of the rows, and log odds of the first position.
        found: by surrogate [H, 6, n], see `judge`.
        sink_odds: by surrogate, where it has a word on it, [H, n] log odds of the first position.
    """

    def __init__(self, heads: int, queries: int, device: torch.device | str = "cpu") -> None:
        self.truth = torch.zeros(heads, 6, queries, device=device)
        self.found: dict[str, torch.Tensor] = {}
        self.sink_odds: dict[str, torch.Tensor] = {}

    def see(self, rows: Rows, block: Block) -> None:
        """Take in the rows of one block."""
        of_block = torch.cat([rows.facts, rows.sink_odds[:, None]], 1)
        self.truth[block.heads, :, block.start - 1 : block.stop - 1] = of_block

    def add(self, name: str, given: LogWeights, rows: Rows, block: Block) -> torch.Tensor | None:
        """Compare a surrogate with the rows of one block.

        Returns:
            [H, B] log odds of the first position, or None.
        """
        judged, part = judge(given, rows, block), slice(block.start - 1, block.stop - 1)
        self._of(self.found, name, self.truth)[block.heads, :, part] = judged
        odds = given.sink_odds
        if odds is None and given.sink is not None:
            odds = given.sink - judged[:, 0] - judged[:, 1]
        if odds is None:
            return None
        odds = block.where_sink_is_seen(odds)
        self._of(self.sink_odds, name, self.truth[:, 0])[block.heads, part] = odds
        return odds

    @staticmethod
    def _of(of_names: dict[str, torch.Tensor], name: str, like: torch.Tensor) -> torch.Tensor:
        if name not in of_names:
            of_names[name] = torch.zeros(like.shape, device=like.device)
        return of_names[name]

    @property
    def sink(self) -> torch.Tensor:
        """[H, n] attention on the first position."""
        return torch.sigmoid(self.truth[:, 5])

    def measures(self, name: str) -> dict[str, torch.Tensor]:
        """kl, kl_position, total_variation, top_token and, where the sink is predicted, kl_with_sink: each [H, n]."""
        _, entropy, token_entropy, _, _, odds = self.truth.unbind(1)
        log_total, _, cross, cross_position, common, right = self.found[name].unbind(1)
        divergence = (log_total - token_entropy - cross).clamp_(min=0.0)
        found = {
            "kl": divergence,
            "kl_position": (log_total - entropy - cross_position).clamp_(min=0.0),
            "total_variation": (1.0 - common).clamp_(min=0.0),
            "top_token": right,
        }
        if name in self.sink_odds:
            found["kl_with_sink"] = _with_sink(odds, self.sink_odds[name], divergence)
        return found

    def kl_at_level(self, name: str, level: torch.Tensor) -> torch.Tensor:
        """[H, n] KL divergence, the first position included, where its log odds are the same [H] for every query."""
        return _with_sink(self.truth[:, 5], level[:, None], self.measures(name)["kl"])


def _with_sink(odds: torch.Tensor, guess: torch.Tensor, divergence: torch.Tensor) -> torch.Tensor:
    """KL divergence with the first position as a state of its own, from log odds and the divergence of the rest."""
    rest = torch.sigmoid(-odds)
    apart = (1.0 - rest) * (_log_sigmoid(odds) - _log_sigmoid(guess))
    apart += rest * (_log_sigmoid(-odds) - _log_sigmoid(-guess))
    return apart.clamp_(min=0.0) + rest * divergence


def judge(given: LogWeights, rows: Rows, block: Block) -> torch.Tensor:
    """Compare log weights with the rows of one block.

    Returns:
        [H, 6, B]: logarithm of the sum of the weights, in units of the largest; its logarithm; attention times log
        weights, less the largest, over types; the same over positions; the sum of the smaller of the two distributions
        over types; the chance that the likeliest type is a most attended one, where ties are broken at random.
    """
    if rows.token.device.type != "cpu":
        return _judge(given, rows, block)
    heads, _, width = rows.token.shape
    found = torch.zeros(heads, 6, width)
    values, change = given.values, NO_VALUES if given.change is None else given.change
    if given.by_token:
        parts = arrays(values, change, block.queries, block.log_counts, rows.token, rows.facts, found)
        judge_kernels.types(*parts)
        return found
    scale = NO_VALUES.view(0) if given.scale is None else given.scale
    profile = NO_VALUES.view(0, 0) if given.profile is None else given.profile.expand(heads, -1).contiguous()
    place = NO_VALUES.view(0, 0) if given.place is None else given.place[:, block.low : block.stop].contiguous()
    parts = arrays(values, scale, profile, place, change, block.queries, block.columns)
    judge_kernels.positions(*parts, *block.shape, *arrays(rows.weight, rows.token, rows.facts, found))
    return found


def _judge(given: LogWeights, rows: Rows, block: Block) -> torch.Tensor:
    """The same by torch, on any device."""
    logs, truth = given.summed(block), rows.token
    top = logs.amax(1, keepdim=True)
    shifted = logs - top
    token = weight = shifted.exp()
    if given.by_token:  # within a token, every position is as likely
        cross = (truth * shifted).sum(1)
        cross_position = cross - rows.facts[:, 3]
    else:
        token = block.per_token(weight)
        cross = (truth * _logs(token, shifted, truth, block)).sum(1)
        cross_position = (rows.weight * shifted).sum(1)
    total = token.sum(1, keepdim=True)
    common = torch.minimum(token / total, truth).sum(1)
    chosen = (token > token.amax(1, keepdim=True) * (1.0 - TIE)).float()
    most = truth > rows.facts[:, 4:] * (1.0 - TIE)
    right = (chosen * most).sum(1) / chosen.sum(1)
    found = total[:, 0].log(), top[:, 0], cross, cross_position, common, right
    return torch.stack([of_block.expand_as(cross) for of_block in found], 1)


def _logs(token: torch.Tensor, shifted: torch.Tensor, truth: torch.Tensor, block: Block) -> torch.Tensor:
    """[H, u, B] logarithms of the weights of tokens, in float64 where float32 lost one that matters."""
    if not bool((truth * (token < 2.0 * TINY)).sum() > MATTERS):
        return token.clamp(min=TINY).log()
    exact = block.per_token(shifted.double().exp())
    return torch.where(truth > 0, exact.log(), 0.0).float()


def _log_sigmoid(odds: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.logsigmoid(odds)
