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
from harness.attention.log_weights import LogWeights, of_queries, sink_odds
from harness.data.texts import Text
from harness.surrogates._fitting.sink_fit import SinkFit
from harness.surrogates.base import FloatArray, Surrogate


class HeadLike(Protocol):
    """Whatever speaks about the heads of a layer."""

    def along(self, view: View) -> Callable[[Block], LogWeights]: ...


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
