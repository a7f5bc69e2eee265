"""Attention in blocks of queries: rows pass by, are summed or compared, and are gone.

The layout is keys down, queries across: [H, L, B]. Summing over the positions of a token is then adding contiguous
rows (`per_token`), and a table of (key token, query) is spread over positions by copying rows (`spread`); both are
several times faster than a product with a one-hot matrix, and need no more room than the block. Position 0, the
attention sink, is never a key of a block: its score stands beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from harness.sources.capture import IntArray, LayerCall, key_heads
from harness.texts import Text

ENTRIES = 1_500_000  # numbers in one [H, L, B] array: a few megabytes, which caches hold
MOST_QUERIES, FEWEST_QUERIES = 128, 8
HIDDEN = -1e30  # score of a key that a query does not see; finite, so that 0 times it is 0


class View:
    """One text as a layer sees it, on the device of the model; every position from 1 on asks, and is asked.

    Args:
        text: the contexts along the text (`head_text`).
        device: of the model.
    """

    def __init__(self, text: Text, device: torch.device | str = "cpu") -> None:
        if text.first != 1 or len(text) != len(text.tokens) - 1:
            raise ValueError("blocks need a text whose positions from 1 on all ask and are asked")
        self.text = text
        self.types = torch.as_tensor(text.types, device=device)  # [U]
        self.column = torch.as_tensor(text.key_index, device=device)  # [T - 1] the type of each position from 1 on
        self.length = len(text.tokens)
        self.codes: dict[int, IntArray] = {}  # by size of vocabulary, what all layers share

    def blocks(self, heads: int) -> Iterator[Block]:
        """The queries of the text in order, so many at once that an array over heads and keys stays small."""
        size = min(MOST_QUERIES, max(FEWEST_QUERIES, ENTRIES // (heads * self.length)))
        for start in range(1, self.length, size):
            stop = min(start + size, self.length)
            low = 1 if self.text.window is None else max(1, start - self.text.window + 1)
            yield Block(self, start, stop, low)


@dataclass(frozen=True, eq=False)
class Block:
    """The queries start ... stop - 1 of a text, and the keys low ... stop - 1 that any of them sees.

    Attributes:
        view: the text.
        start, stop: B = stop - start query positions.
        low: the first key position; L = stop - low.
    """

    view: View
    start: int
    stop: int
    low: int

    @property
    def columns(self) -> torch.Tensor:
        """[L] the type of each key position."""
        return self.view.column[self.low - 1 : self.stop - 1]

    @property
    def queries(self) -> torch.Tensor:
        """[B] the type of each query position."""
        return self.view.column[self.start - 1 : self.stop - 1]

    @cached_property
    def hidden(self) -> list[tuple[slice, torch.Tensor]]:
        """Where keys are not seen: key rows, and a mask [rows, B] over them."""
        device, width = self.view.column.device, self.stop - self.start
        future = torch.ones(width, width, dtype=torch.bool, device=device).tril(-1)
        found = [(slice(self.start - self.low, self.stop - self.low), future)]
        window = self.view.text.window
        if window is not None and self.stop - self.low > window:
            position = torch.arange(self.low, self.stop - window, device=device)[:, None]
            query = torch.arange(self.start, self.stop, device=device)[None, :]
            found.append((slice(0, len(position)), query - position >= window))
        return found

    def hide(self, values: torch.Tensor, fill: float = HIDDEN) -> torch.Tensor:
        """Overwrite [..., L, B] in place wherever a query does not see a key."""
        for rows, mask in self.hidden:
            values[..., rows, :].masked_fill_(mask, fill)
        return values

    @cached_property
    def sees_sink(self) -> torch.Tensor:
        """[B] does a query see position 0?"""
        query = torch.arange(self.start, self.stop, device=self.view.column.device)
        window = self.view.text.window
        return torch.ones_like(query, dtype=torch.bool) if window is None else query < window

    def per_token(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the positions of each type: [H, L, B] -> [H, U, B]."""
        summed = values.new_zeros(values.shape[0], len(self.view.types), values.shape[2])
        return summed.index_add_(1, self.columns, values)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """What stands at the type of each key position: [H, U, B] -> [H, L, B]."""
        return values.index_select(1, self.columns)

    @cached_property
    def counts(self) -> torch.Tensor:
        """[U, B] float32, how often each type stands in the context of each query."""
        seen = self._up_to(self.start, self.stop)
        window = self.view.text.window
        return seen if window is None else seen - self._up_to(self.start - window, self.stop - window)

    @cached_property
    def log_counts(self) -> torch.Tensor:
        """[U, B] logarithm of the counts; a huge negative number where a type is not in the context."""
        return torch.where(self.counts > 0, self.counts.clamp(min=1.0).log(), HIDDEN)

    def _up_to(self, start: int, stop: int) -> torch.Tensor:
        """[U, stop - start] counts of the types at positions 1 ... p, for p = start ... stop - 1."""
        column, size = self.view.column, len(self.view.types)
        step = torch.zeros(size, stop - start, device=column.device)
        before = max(start, 1)  # position 0 and what stands before it count nothing
        step[:, 0] = torch.bincount(column[: before - 1], minlength=size)
        places = torch.arange(before, max(stop, before), device=column.device)
        step[column[before - 1 : before - 1 + len(places)], places - start] += 1.0
        return step.cumsum_(1)

    def by_distance(self, values: torch.Tensor) -> torch.Tensor:
        """Sum [H, L, B] over the pairs of positions at each distance 0 ... T - 1: [H, T]; unseen keys must hold 0."""
        heads, keys, width = values.shape
        found = values.new_zeros(heads, self.view.length)
        farthest = self.start - self.low  # distance of the first query to the first key
        # along a diagonal key and query move on together: rows of a diagonal lie width + 1 numbers apart
        diagonals = values.as_strided((heads, farthest + 1, width), (keys * width, width, width + 1))
        found[:, : farthest + 1] = diagonals.sum(-1).flip(1)
        if width > 1:  # diagonals that begin at the first key and a later query
            corner = values.new_zeros(heads, 2 * width, width)
            corner[:, width:] = values[:, :width].triu(1)
            more = corner.as_strided((heads, width, width), (2 * width * width, width, width + 1)).sum(-1)
            found[:, farthest + 1 : farthest + width] += more[:, 1:].flip(1)
        return found

    def of_distance(self, profile: torch.Tensor) -> torch.Tensor:
        """Look a profile over distances up at every pair of positions: [H, T] -> [H, L, B]; unseen keys hold any."""
        heads, width, keys = profile.shape[0], self.stop - self.start, self.stop - self.low
        padded = profile.new_zeros(heads, width - 1 + keys)  # distances -(B - 1) ... L - 1
        padded[:, width - 1 :] = profile[:, :keys]
        return padded.unfold(1, width, 1).flip(1)


@dataclass(frozen=True)
class Rows:
    """The attention of the heads of a layer in one block.

    Attributes:
        weight: [H, L, B] over the positions from 1 on, each query's summing to 1; 0 where a key is not seen.
        token: [H, U, B] the same summed per token.
        entropy: [H, B] of `weight`, nats.
        sink_odds: [H, B] log of the attention on position 0 over that on all others; `HIDDEN` where it is not seen.
    """

    weight: torch.Tensor
    token: torch.Tensor
    entropy: torch.Tensor
    sink_odds: torch.Tensor


@dataclass(frozen=True)
class Asked:
    """Queries and keys of one call, ready to be multiplied."""

    call: LayerCall
    query: torch.Tensor  # [H, d, T], scaled
    key: torch.Tensor  # [H, T, d], one for each query head

    @classmethod
    def of(cls, call: LayerCall) -> Asked:
        head = key_heads(call.query.shape[0], call.key.shape[0]).to(call.key.device)
        query = (call.query.float() * call.scaling).transpose(1, 2).contiguous()
        return cls(call, query, call.key.float()[head])

    def scores(self, block: Block) -> torch.Tensor:
        """[H, L, B] scores of the keys of a block; nothing is hidden yet."""
        return self._capped(torch.bmm(self.key[:, block.low : block.stop], self.query[:, :, block.start : block.stop]))

    def sink_scores(self, block: Block) -> torch.Tensor:
        """[H, B] scores of position 0."""
        return self._capped(torch.bmm(self.key[:, :1], self.query[:, :, block.start : block.stop]))[:, 0]

    def _capped(self, scores: torch.Tensor) -> torch.Tensor:
        cap = self.call.softcap
        return scores if cap is None else scores.div_(cap).tanh_().mul_(cap)


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


def rows(asked: Asked, block: Block) -> Rows:
    """The attention of one call in one block.

    Raises:
        ValueError: a score that is not finite; names layer, head and position.
    """
    weight, normaliser, entropy = softmax_(block.hide(asked.scores(block)))
    sink = asked.sink_scores(block)
    finite = torch.isfinite(normaliser) & torch.isfinite(entropy) & torch.isfinite(sink)
    if not bool(finite.all()):
        head, query = (int(i) for i in torch.nonzero(~finite)[0])
        where = f"layer {asked.call.layer}, head {head}, position {block.start + query}"
        raise ValueError(f"{where}: the attention scores are not finite")
    odds = torch.where(block.sees_sink, sink - normaliser, HIDDEN)
    return Rows(weight, block.per_token(weight), entropy, odds)
