"""Surrogates of a layer scored on one text, block by block, as its attention rows pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from harness.attention import block_rows
from harness.attention.blocks import Asked, View
from harness.attention.capture import LayerCall
from harness.attention.log_weights import SINK_ODDS
from harness.measures.block_fidelity import Comparison
from harness.surrogates.base import HeadSurrogate


class Watching(Protocol):
    """Is shown rows as they pass, as `PatternSums.add` is."""

    def add(self, weight: torch.Tensor, low: int, start: int, heads: slice) -> None: ...


def compare_text(
    call: LayerCall, view: View, surrogates: Mapping[str, HeadSurrogate], patterns: Watching | None = None
) -> Comparison:
    """Hold surrogates of one layer against its attention along one text.

    Args:
        call: the layer's call over the text.
        view: the text.
        surrogates: by name.
        patterns: shown the rows as they pass.

    Raises:
        ValueError: a score that is not finite; names layer, head and position.
    """
    asked, heads, queries = Asked.of(call), call.query.shape[0], view.length - 1
    view = view.apart(asked)
    ready = {name: surrogate.along(view) for name, surrogate in surrogates.items()}
    comparison = Comparison(heads, queries, asked.key.device)
    for block in view.blocks(heads):
        rows = block_rows.rows(asked, block)
        if patterns is not None:
            patterns.add(rows.weight, block.low, block.start, block.heads)
        comparison.see(rows, block)
        for name, weights in ready.items():
            given = weights(block)
            # what is fitted on top of a surrogate need not compute its odds again
            block.shared.keep(given, SINK_ODDS, comparison.add(name, given, rows, block))
    return comparison


def score_text(
    call: LayerCall, view: View, surrogates: Mapping[str, HeadSurrogate], patterns: Watching | None = None
) -> tuple[np.ndarray[Any, Any], dict[str, dict[str, np.ndarray[Any, Any]]]]:
    """Score surrogates of one layer on one text; arguments and errors as `compare_text`.

    Returns:
        [H] mean share of the first position, and [H] means over the queries by surrogate and metric.
    """
    comparison = compare_text(call, view, surrogates, patterns)

    def mean(values: torch.Tensor) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = values.double().mean(1).cpu().numpy()
        return found

    means = {
        name: {metric: mean(values) for metric, values in comparison.measures(name).items()} for name in surrogates
    }
    return mean(comparison.sink), means
