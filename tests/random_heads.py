"""Random heads and texts over seven tokens, for tests of surrogates and of blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from harness.attention.capture import LayerCall
from harness.attention.static_inputs import StaticHeads
from harness.data.texts import Text

K = 7


def text(seed: int, length: int = 20, first: int = 0, start: int = 2) -> Text:
    return Text(np.random.default_rng(seed).integers(0, K, length), start=start, first=first)


SPEEDS = torch.tensor([1.0, 0.3, 0.05], dtype=torch.float64)


@dataclass(frozen=True)
class RandomHeads(StaticHeads):
    """4 query heads on 2 key heads with random queries and keys of 6 channels, rotated along a text."""

    def of_text(self, tokens: Any) -> LayerCall:
        angle = torch.arange(len(tokens))[:, None] * SPEEDS

        def turned(x: torch.Tensor) -> torch.Tensor:
            both = torch.complex(x[..., :3], x[..., 3:]) * torch.exp(1j * angle)
            return torch.cat([both.real, both.imag], -1).to(x.dtype)

        start = self.at_start
        return replace(start, query=turned(start.query[:, tokens]), key=turned(start.key[:, tokens]))


def static_heads(softcap: float | None = None, dtype: torch.dtype = torch.float32) -> StaticHeads:
    generator = torch.Generator().manual_seed(1)
    query, key = (torch.randn(n, K, 6, generator=generator).to(dtype) for n in (4, 2))
    call = LayerCall(1, torch.nn.Identity(), query, key, 0.4, softcap, None)
    return RandomHeads(None, call, np.arange(K), torch.empty(0), None, call)
