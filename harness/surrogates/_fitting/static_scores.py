"""What the surrogates of a layer share that are read off its weights: the heads, and scores along a text."""

from __future__ import annotations

from typing import Literal

import torch

from harness.attention.blocks import Asked, View
from harness.attention.static_inputs import StaticHeads
from harness.surrogates.base import HeadSurrogate


def asked_along(heads: StaticHeads, view: View) -> Asked:
    """Queries and keys of static inputs along a text, computed once for all surrogates of a layer."""
    return view.shared.get(heads, "static inputs", lambda: Asked.of(heads.of_text(view.text.tokens)))


def of_static_sink(heads: StaticHeads) -> Literal["score"] | None:
    """What static heads say about the first position of a text: the score of its input, where it has one."""
    return None if heads.sink_type is None else "score"


class ReadOffWeights(HeadSurrogate, partial=True):
    """A surrogate that reads a layer's heads."""

    def __init__(self, heads: StaticHeads) -> None:
        self.heads = heads

    @property
    def device(self) -> torch.device:
        return self.heads.at_start.key.device
