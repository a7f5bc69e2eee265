"""What fits add to log weights along a text: tables of pairs of tokens, and fitted odds of the first position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from scipy import sparse

from harness.attention.blocks import Block, View
from harness.attention.log_weights import SINK_ODDS, LogWeights, on, sink_odds
from harness.attention.loop_terms import FittedOdds
from harness.surrogates._fitting.sink_fit import SinkFit


def odds_terms(fitted: SinkFit | None) -> dict[str, Any]:
    """What fitted odds of the first position are among the terms of a running model; nothing is said without a fit."""
    return {} if fitted is None else {"sink": "score", "odds": FittedOdds(fitted.a, fitted.c, fitted.effect)}


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


def fitted_odds(fitted: SinkAlong | None, prior: LogWeights, block: Block) -> torch.Tensor | None:
    """[H, B] fitted log odds of the first position, from those of the prior, which are computed once per block."""
    if fitted is None:
        return None
    odds = block.shared.get(prior, SINK_ODDS, lambda: sink_odds(prior, block))
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


@numba.njit(cache=True, nogil=True, fastmath=False)
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
