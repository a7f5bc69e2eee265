"""Attention in blocks of queries: rows pass by, are summed or compared, and are gone.

The layout is keys down, queries across: [H, L, B]. Summing over the positions of a token is then adding contiguous
rows (`per_token`), and a table of (key token, query) is spread over positions by copying rows (`spread`); both are
several times faster than a product with a one-hot matrix, and need no more room than the block. Position 0, the
attention sink, is never a key of a block: its score is kept separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch

from harness.attention.capture import LayerCall, key_heads
from harness.data.texts import Text

ENTRIES = 640_000  # numbers in one [H, L, B] array: a few megabytes at most
MOST_QUERIES, FEWEST_QUERIES = 128, 32  # powers of two: kernels are slower on rows of other lengths
HIDDEN = -1e30  # score of a key that a query does not see; finite, so that 0 times it is 0


T = TypeVar("T")


class Once:
    """Quantities that the surrogates of a layer share, each computed once.

    A quantity is known by the object that it belongs to, such as the heads of the layer, and by a name.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[object, str, Any]] = []

    def get(self, of: object, name: str, compute: Callable[[], T]) -> T:
        """The quantity of an object; computed where it is not kept yet."""
        for owner, known, value in self._kept:
            if owner is of and known == name:
                kept: T = value
                return kept
        made = compute()
        self._kept.append((of, name, made))
        return made

    def keep(self, of: object, name: str, value: Any) -> None:
        """Keep a quantity that has been computed elsewhere, instead of one that is kept already."""
        self._kept = [one for one in self._kept if not (one[0] is of and one[1] == name)]
        self._kept.append((of, name, value))


class View:
    """One text as a layer sees it, on the device of the model: each position t >= 1 is a query and a key.

    Args:
        text: the contexts along the text (`head_text`).
        device: of the model.
    """

    def __init__(self, text: Text, device: torch.device | str = "cpu") -> None:
        if text.first != 1 or len(text) != len(text.tokens) - 1:
            raise ValueError("blocks need a text in which each position t >= 1 is a query and a key")
        self.text, self.length = text, len(text.tokens)
        # types in the order in which they come: those that a block has seen are the first ones
        _, first = np.unique(text.key_index, return_index=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        self.met = np.maximum.accumulate(rank[text.key_index]) + 1  # [T - 1] how many types have come
        self.types = torch.as_tensor(text.types[order], device=device)  # [U]
        self.rank = torch.as_tensor(rank, device=device)  # [U] the place of each of the sorted types among them
        self.column = self.rank[torch.as_tensor(text.key_index, device=device)]  # [T - 1] of each position from 1 on
        self.shared = Once()  # along the text, by the surrogates of a layer
        self.asked: Asked | None = None  # the model's own queries and keys, for controls
        self.of_all_layers = Once()  # along the text, by all layers that see it so

    def apart(self, asked: Asked) -> View:
        """The same text for one layer, with its own queries and keys, and nothing shared yet."""
        other = copy(self)
        other.shared, other.asked = Once(), asked
        return other

    def by_type(self, values: torch.Tensor) -> torch.Tensor:
        """[H, u, B] over the types seen so far -> [H, U, B] over the types of the text, sorted; 0 for the others."""
        whole = values.new_zeros(values.shape[0], len(self.types), values.shape[2])
        whole[:, : values.shape[1]] = values
        return whole.index_select(1, self.rank)

    def pick(self, pairs: torch.Tensor) -> torch.Tensor:
        """Sums of pairs of types as they come, [H, U, U] -> [H, p] in the order of `Text.pairs`."""
        query, key = (self.rank[torch.as_tensor(part, device=pairs.device)] for part in self.text.pairs)
        return pairs.flatten(1).index_select(1, query * len(self.types) + key)

    def blocks(self, heads: int | None) -> Iterator[Block]:
        """The queries of the text in order, and heads in order, so many at once that arrays over them stay small.

        Args:
            heads: H; None for blocks of all heads at once, however many there are.
        """
        size = MOST_QUERIES
        while size > FEWEST_QUERIES and size * self.length > ENTRIES:
            size //= 2
        for start in range(1, self.length, size):
            stop = min(start + size, self.length)
            low = 1 if self.text.window is None else max(1, start - self.text.window + 1)
            block = Block(self, start, stop, low, slice(None))
            if heads is None:
                yield block
                continue
            together = max(1, ENTRIES // ((stop - low) * size))
            for first in range(0, heads, together):
                yield replace(block, heads=slice(first, min(first + together, heads)), shared=Once())


@dataclass(frozen=True, eq=False)
class Block:
    """The queries start ... stop - 1 of a text, the keys low ... stop - 1 that any of them sees, and some heads.

    Below, H counts these heads alone.

    Attributes:
        view: the text.
        start, stop: B = stop - start query positions.
        low: the first key position; L = stop - low.
        heads: which.
        shared: by the surrogates of one layer.
        counted: by the blocks that differ in their heads alone.
    """

    view: View
    start: int
    stop: int
    low: int
    heads: slice
    shared: Once = field(default_factory=Once)
    counted: Once = field(default_factory=Once)

    @property
    def met(self) -> int:
        """u, how many types have come before the end of the block: the first of the view's."""
        return int(self.view.met[self.stop - 2])

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

    def where_sink_is_seen(self, odds: torch.Tensor) -> torch.Tensor:
        """[H, B] log odds of position 0, `HIDDEN` where a query does not see it."""
        return odds if self.view.text.window is None else torch.where(self.sees_sink, odds, HIDDEN)

    def per_token(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the positions of each type: [H, L, B] -> [H, u, B]."""
        summed = values.new_zeros(values.shape[0], self.met, values.shape[2])
        return summed.index_add_(1, self.columns, values)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """The value at the type of each key position: [H, u, B] -> [H, L, B]."""
        return values.index_select(1, self.columns)

    @property
    def counts(self) -> torch.Tensor:
        """[u, B] float32, how often each type occurs in the context of each query."""
        return self.counted.get(self.view, "counts", self._counts)

    @property
    def log_counts(self) -> torch.Tensor:
        """[u, B] logarithm of the counts; a huge negative number where a type is not in the context."""
        counts = self.counts
        return self.counted.get(
            self.view, "log counts", lambda: torch.where(counts > 0, counts.clamp(min=1.0).log(), HIDDEN)
        )

    def _counts(self) -> torch.Tensor:
        seen = self._up_to(self.start, self.stop)
        window = self.view.text.window
        return seen if window is None else seen - self._up_to(self.start - window, self.stop - window)

    def _up_to(self, start: int, stop: int) -> torch.Tensor:
        """[u, stop - start] counts of the types at positions 1 ... p, for p = start ... stop - 1."""
        column, size = self.view.column, self.met
        step = torch.zeros(size, stop - start, device=column.device)
        before = max(start, 1)  # position 0 and those before it count nothing
        step[:, 0] = torch.bincount(column[: before - 1], minlength=size)
        places = torch.arange(before, max(stop, before), device=column.device)
        step[column[before - 1 : before - 1 + len(places)], places - start] += 1.0
        return step.cumsum_(1)

    @property
    def shape(self) -> tuple[int, int]:
        """How far the first query is from the first key, and how many positions a query sees, itself included."""
        window = self.view.text.window
        return self.start - self.low, self.view.length if window is None else window

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
        return self._product(block, slice(block.low, block.stop))

    def sink_scores(self, block: Block) -> torch.Tensor:
        """[H, B] scores of position 0."""
        return self._product(block, slice(0, 1))[:, 0]

    def _product(self, block: Block, keys: slice) -> torch.Tensor:
        scores = torch.bmm(self.key[block.heads, keys], self.query[block.heads, :, block.start : block.stop])
        cap = self.call.softcap
        return scores if cap is None else scores.div_(cap).tanh_().mul_(cap)
