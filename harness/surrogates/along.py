"""Surrogates of heads: what they give to the tokens or positions of a text, one block of queries at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy import sparse

from harness.sources.blocks import HIDDEN, Block, View
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
        shifted: [H, u, B] or [H, L, B] log weights of tokens or positions, the largest of each query 0; hugely negative
            where a key is not seen.
        token: [H, u, B] weights of tokens.
        log_total: [H, B] logarithm of their sum.
        by_token, ties: does `shifted` speak about tokens, and may they be equally likely?
        sink_odds: [H, B] log odds of the first position, or None.
    """

    shifted: torch.Tensor
    token: torch.Tensor
    log_total: torch.Tensor
    by_token: bool
    ties: bool
    sink_odds: torch.Tensor | None


def _seen(given: LogWeights, block: Block) -> torch.Tensor:
    """[H, u, B] or [H, L, B] log weights with counts, hugely negative where a key is not seen."""
    return given.values + block.log_counts if given.by_token else block.hide(given.values)


def predicted(given: LogWeights, block: Block) -> Predicted:
    """Weights from their logarithms."""
    values = _seen(given, block)
    top = values.amax(1, keepdim=True)
    shifted = values - top
    weight = shifted.exp()
    log_total = weight.sum(1).log_()
    token = weight if given.by_token else block.per_token(weight)
    odds = given.sink_odds
    if odds is None and given.sink is not None:
        odds = given.sink - log_total - top[:, 0]
    if odds is not None:
        odds = torch.where(block.sees_sink, odds, HIDDEN)
    return Predicted(shifted, token, log_total, given.by_token, given.ties, odds)


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
    size = pattern.shape[1]
    known = np.repeat(np.arange(len(pattern.indptr) - 1), np.diff(pattern.indptr)) * size + pattern.indices
    if len(known) == 0:
        return on(view, np.zeros((len(deltas), len(types), len(types))))
    wanted = types[:, None] * size + types[None, :]
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found = known[place] == wanted
    return on(view, np.stack([np.where(found, delta.data.astype(np.float32)[place], 0.0) for delta in deltas]))


def added(tables: torch.Tensor, block: Block) -> torch.Tensor:
    """[H, u, B] what `delta_tables` add in one block."""
    rows = tables[block.heads].index_select(1, block.queries)[:, :, : block.met]
    return rows.transpose(1, 2).contiguous()


def on(view: View, values: FloatArray) -> torch.Tensor:
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
            token = view.by_type(predicted(weights(block), block).token.double())
            parts.append((token / token.sum(1, keepdim=True)).cpu().numpy().transpose(0, 2, 1))
        return np.concatenate(parts, axis=1)

    @property
    def device(self) -> torch.device:
        """Where the surrogate computes."""
        return torch.device("cpu")
