"""Surrogates of heads: what they give to the tokens or positions of a text, one block of queries at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy import sparse

from harness.sources.blocks import HIDDEN, Block, Rows, View
from harness.surrogates.base import FloatArray, Surrogate
from harness.surrogates.sink_fit import SinkFit
from harness.texts import Text


@dataclass(frozen=True)
class LogWeights:
    """Log weights of one block, before counts; H may be 1 where all heads get the same.

    Attributes:
        values: [H, u, B] per token met so far, to be multiplied by counts, or [H, L, B] per position. Keys that a
            query does not see may hold anything, and are overwritten.
        by_token: which of the two.
        ties: may tokens be equally likely, as they are where tokens do not matter?
        sink: [H, B] log weight of the first position as a state of its own; None where the surrogate has no word on it.
        sink_odds: [H, B] its log odds against all others instead, where these do not follow from `values`.
    """

    values: torch.Tensor
    by_token: bool
    ties: bool = False
    sink: torch.Tensor | None = None
    sink_odds: torch.Tensor | None = None


class HeadLike(Protocol):
    """Whatever speaks about the heads of a layer."""

    def along(self, view: View) -> Callable[[Block], LogWeights]: ...


@dataclass(frozen=True)
class Predicted:
    """What a surrogate gives in one block, up to the normaliser of each query.

    Attributes:
        values: [H, u, B] or [H, L, B] log weights of tokens, with counts, or of positions.
        top: [H, B] the largest of each query.
        token: [H, u, B] weights of tokens, in units of exp(top).
        log_total: [H, B] logarithm of their sum.
        cross: [H, B] sum of observed weights times (log weights - top); None where nothing was observed.
        by_token, ties: do `values` speak about tokens, and may they be equally likely?
        sink_odds: [H, B] log odds of the first position, or None.
    """

    values: torch.Tensor
    top: torch.Tensor
    token: torch.Tensor
    log_total: torch.Tensor
    cross: torch.Tensor | None
    by_token: bool
    ties: bool
    sink_odds: torch.Tensor | None


def _seen(given: LogWeights, block: Block) -> torch.Tensor:
    """[H, u, B] or [H, L, B] log weights with counts, hugely negative where a key is not seen."""
    return given.values + block.log_counts if given.by_token else block.hide(given.values)


def predicted(given: LogWeights, block: Block, rows: Rows | None = None) -> Predicted:
    """Weights from their logarithms, and how they meet the observed ones, if any."""
    values = given.values + block.log_counts if given.by_token else given.values
    observed = None if rows is None else rows.token if given.by_token else rows.weight
    found = block.weigh(values, given.by_token, observed)
    odds = given.sink_odds
    if odds is None and given.sink is not None:
        odds = given.sink - found.log_total - found.top
    if odds is not None:
        odds = torch.where(block.sees_sink, odds, HIDDEN)
    return Predicted(values, found.top, found.token, found.log_total, found.cross, given.by_token, given.ties, odds)


def sink_odds(given: LogWeights, block: Block) -> torch.Tensor | None:
    """[H, B] log odds of the first position that follow from log weights; None where there is no word on it."""
    if given.sink is None:
        return None
    return torch.where(block.sees_sink, given.sink - torch.logsumexp(_seen(given, block), 1), HIDDEN)


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
    """[H, U, U] what fits add to the logit of each (query, key) among the types of a text, as they come.

    All heads have numbers at the same pairs.
    """
    pattern, types = deltas[0], view.types.cpu().numpy()
    column = np.full(pattern.shape[1], -1)
    column[types] = np.arange(len(types))
    rows = np.concatenate([np.arange(pattern.indptr[t], pattern.indptr[t + 1]) for t in types])
    query = np.repeat(np.arange(len(types)), (pattern.indptr[1:] - pattern.indptr[:-1])[types])
    key = column[pattern.indices[rows]]
    kept = key >= 0
    place, rows = query[kept] * len(types) + key[kept], rows[kept]
    tables = np.zeros((len(deltas), len(types) ** 2), np.float32)
    for table, delta in zip(tables, deltas, strict=True):
        table[place] = delta.data[rows]
    return on(view, tables.reshape(len(deltas), len(types), len(types)))


def added(tables: torch.Tensor, block: Block) -> torch.Tensor:
    """[H, u, B] what `delta_tables` add in one block."""
    rows = tables[block.heads].index_select(1, block.queries)[:, :, : block.met]
    return rows.transpose(1, 2).contiguous()


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
            log = _seen(given, block).double()  # float32 would make zeros of what lies 88 nats below the best
            weight = torch.exp(log - log.amax(1, keepdim=True))
            token = view.by_type(weight if given.by_token else block.per_token(weight))
            parts.append((token / token.sum(1, keepdim=True)).cpu().numpy().transpose(0, 2, 1))
        return np.concatenate(parts, axis=1)

    @property
    def device(self) -> torch.device:
        """Where the surrogate computes."""
        return torch.device("cpu")
