"""Surrogates of heads: what they give to the tokens or positions of a text, one block of queries at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numba
import numpy as np
import torch
from scipy import sparse

from harness.attention.blocks import Block, View
from harness.data.texts import Text
from harness.surrogates._fitting.sink_fit import SinkFit
from harness.surrogates.base import FloatArray, Surrogate

NO_VALUES = torch.empty(0, 0, 0)


@dataclass(frozen=True)
class LogWeights:
    """Log weights of one block, before counts: the sum of their parts, of which some may be missing.

    Attributes:
        values: [H, u, B] per token met so far, to be multiplied by counts, or [H, L, B] per position; H may be 1 where
            all heads get the same, 0 where there are none. Keys that a query does not see may hold anything.
        by_token: which of the two.
        scale: [H] a factor of the values; of positions only.
        profile: [H, T] per distance; of positions only.
        place: [H, T] per position of the key; of positions only.
        change: [H, U, U] per pair of tokens, see `delta_tables`.
        sink: [H, B] log weight of the first position as a state of its own; None where the surrogate has no word on it.
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


class HeadLike(Protocol):
    """Whatever speaks about the heads of a layer."""

    def along(self, view: View) -> Callable[[Block], LogWeights]: ...


def sink_odds(given: LogWeights, block: Block) -> torch.Tensor | None:
    """[H, B] log odds of the first position that follow from log weights; None where there is no word on it."""
    if given.sink is None:
        return None
    return block.where_sink_is_seen(given.sink - torch.logsumexp(given.summed(block), 1))


@dataclass(frozen=True)
class SinkAlong:
    """Fitted odds of the first position, where a text stands: [H, 1], [H, 1] and [H, U] of its types."""

    a: torch.Tensor
    c: torch.Tensor
    effect: torch.Tensor


def sink_along(fitted: SinkFit | None, view: View) -> SinkAlong | None:
    """Get fitted odds of the first position ready for a text."""
    if fitted is None:
        return None
    effect = fitted.effect[:, view.types.cpu().numpy()]
    return SinkAlong(on(view, fitted.a)[:, None], on(view, fitted.c)[:, None], on(view, effect))


def fitted_odds(fitted: SinkAlong | None, prior: LogWeights, block: Block, name: str) -> torch.Tensor | None:
    """[H, B] fitted log odds of the first position, from what the weights give, which is remembered under a name."""
    if fitted is None:
        return None
    if name not in block.memo:
        block.memo[name] = sink_odds(prior, block)
    odds: torch.Tensor | None = block.memo[name]
    if odds is None:
        return None
    part = block.heads
    return fitted.a[part] + fitted.c[part] * odds + fitted.effect[part][:, block.queries]


def delta_tables(deltas: Sequence[sparse.csr_array], view: View) -> torch.Tensor:
    """[H, U, U] what fits add to the logit of each (query, key) among the types of a text, as they come."""
    types = view.types.cpu().numpy()
    column = np.full(deltas[0].shape[1], -1)
    column[types] = np.arange(len(types))
    tables = np.zeros((len(deltas), len(types), len(types)), np.float32)
    for table, delta in zip(tables, deltas, strict=True):
        fill_table(types, column, delta.indptr, delta.indices, delta.data, table)
    return on(view, tables)


@numba.njit(cache=True, nogil=True)
def fill_table(types, column, start, keys, values, table):  # type: ignore[no-untyped-def]
    """Fill a table [U, U] from a sparse matrix, both by query and key.

    Args:
        types: [U] the token of each query; column: [K] where each token stands, or -1.
        start, keys, values: of the matrix, row by row.
        table: of zeros, gets the values.
    """
    for query, token in enumerate(types):
        row = table[query]
        for place in range(start[token], start[token + 1]):
            at = column[keys[place]]
            if at >= 0:
                row[at] = values[place]


def added(tables: torch.Tensor, block: Block) -> torch.Tensor:
    """[H, u, B] what `delta_tables` add in one block."""
    return of_queries(tables[block.heads], block)


def of_queries(tables: torch.Tensor, block: Block) -> torch.Tensor:
    """Look tables of types up at every query: [H, U, U] by query and key -> [H, u, B]."""
    return tables.index_select(1, block.queries)[:, :, : block.met].transpose(1, 2).contiguous()


def on(view: View, values: np.ndarray[Any, Any]) -> torch.Tensor:
    """An array as float32 where the text stands."""
    return torch.as_tensor(values, dtype=torch.float32, device=view.types.device)


class HeadSurrogate(Surrogate):
    """A surrogate of the heads of a layer."""

    @abstractmethod
    def along(self, view: View) -> Callable[[Block], LogWeights]:
        """Get ready for a text, whose blocks then may come in any order."""

    def predict(self, text: Text) -> FloatArray:
        view, parts = View(text, self.device), []
        weights = self.along(view)
        for block in view.blocks(None):
            given = weights(block)
            log = given.summed(block).double()  # float32 would make zeros of what lies 88 nats below the best
            weight = torch.exp(log - log.amax(1, keepdim=True))
            token = view.by_type(weight if given.by_token else block.per_token(weight))
            parts.append((token / token.sum(1, keepdim=True)).cpu().numpy().transpose(0, 2, 1))
        return np.concatenate(parts, axis=1)

    @property
    def device(self) -> torch.device:
        """Where the surrogate computes."""
        return torch.device("cpu")
