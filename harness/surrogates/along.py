"""Surrogates of heads: what they give to the tokens or positions of a text, one block of queries at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from scipy import sparse

from harness.sources.blocks import HIDDEN, Block, View
from harness.surrogates.base import FloatArray, Surrogate
from harness.surrogates.sink_fit import SinkFit
from harness.texts import Text

HEADS_AT_MOST = 64  # blocks of a text that is met outside a model are cut as if for so many heads


@dataclass(frozen=True)
class LogWeights:
    """Log weights of one block, before counts; H may be 1 where all heads get the same.

    Attributes:
        values: [H, U, B] per token, to be multiplied by counts, or [H, L, B] per position. Keys that a query does not
            see may hold anything.
        by_token: which of the two.
        sink: [H, B] log weight of the first position as a state of its own; None where the surrogate has no word on it.
        sink_odds: [H, B] its log odds against all others instead, where these do not follow from `values`.
    """

    values: torch.Tensor
    by_token: bool
    sink: torch.Tensor | None = None
    sink_odds: torch.Tensor | None = None


class HeadLike(Protocol):
    """Whatever speaks about the heads of a layer."""

    def along(self, view: View) -> Callable[[Block], LogWeights]: ...


@dataclass(frozen=True)
class Predicted:
    """What a surrogate gives in one block.

    Attributes:
        log_weight: [H, U, B] or [H, L, B] log probabilities of tokens or positions; `HIDDEN` where a key is not seen.
        token, log_token: [H, U, B] probabilities of tokens and their logarithms.
        by_token: does `log_weight` speak about tokens?
        sink_odds: [H, B] log odds of the first position, or None.
    """

    log_weight: torch.Tensor
    token: torch.Tensor
    log_token: torch.Tensor
    by_token: bool
    sink_odds: torch.Tensor | None


def log_softmax_(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[H, L, B] log weights turned in place into log probabilities; their exponentials; the normaliser [H, B]."""
    top = values.amax(1, keepdim=True)
    weight = values.sub_(top).exp()
    log_total = weight.sum(1, keepdim=True).log_()
    weight.mul_(log_total.neg().exp())
    return values.sub_(log_total), weight, (log_total + top)[:, 0]


def normalised(given: LogWeights, block: Block) -> Predicted:
    """Probabilities from log weights, which may be overwritten."""
    if given.by_token:
        values = given.values + block.log_counts
        log_weight, token, normaliser = log_softmax_(values)
        log_token = log_weight
    else:
        log_weight, weight, normaliser = log_softmax_(block.hide(given.values))
        token = block.per_token(weight)
        log_token = token.clamp(min=torch.finfo(token.dtype).tiny).log()
    odds = given.sink_odds
    if odds is None and given.sink is not None:
        odds = given.sink - normaliser
    if odds is not None:
        odds = torch.where(block.sees_sink, odds, HIDDEN)
    return Predicted(log_weight, token, log_token, given.by_token, odds)


def sink_odds(fitted: SinkFit | None, prior: LogWeights, block: Block) -> torch.Tensor | None:
    """[H, B] fitted log odds of the first position, from what the weights alone give; these stay as they are."""
    if fitted is None or prior.sink is None:
        return None
    own = replace(prior, values=prior.values.clone())
    odds = normalised(own, block).sink_odds
    assert odds is not None
    at = block.view.types[block.queries].cpu().numpy()
    a, c = (on(block.view, part)[:, None] for part in (fitted.a, fitted.c))
    return a + c * odds + on(block.view, fitted.effect[:, at])


def delta_tables(deltas: Sequence[sparse.csr_array], view: View) -> torch.Tensor:
    """[H, U, U] what fits add to the logit of each (key, query) among the types of a text."""
    types = view.text.types
    return on(view, np.stack([delta[types][:, types].toarray().T for delta in deltas]))


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
        for block in view.blocks(HEADS_AT_MOST):
            found = normalised(weights(block), block)
            token = found.token.double()
            parts.append((token / token.sum(1, keepdim=True)).cpu().numpy().transpose(0, 2, 1))
        return np.concatenate(parts, axis=1)

    @property
    def device(self) -> torch.device:
        """Where the surrogate computes."""
        return torch.device("cpu")
