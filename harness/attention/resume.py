"""Passes that change nothing below some layer go on from what the layers below it made of the same text before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from harness.attention.capture import attention_modules


def decoder_layers(model: Any) -> list[torch.nn.Module]:
    """The layers of a model in their order; none where they cannot be found."""
    attention = attention_modules(model)
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == len(attention):
            held = [set(layer.modules()) for layer in module]
            if all(attention[number] in inside for number, inside in enumerate(held)):
                return list(module)
    return []


class Prefixes:
    """What every layer made of the last text that was kept.

    Args:
        model: a causal language model. Where its layers cannot be found, passes run whole.
    """

    def __init__(self, model: Any) -> None:
        self.layers = decoder_layers(model)
        self._made: dict[int, Any] = {}

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """A block in which the layers' outputs are kept, for one pass over one text."""

        def keep(number: int) -> Any:
            return lambda module, arguments, output: self._made.__setitem__(number, output)

        self._made = {}
        handles = [layer.register_forward_hook(keep(number)) for number, layer in enumerate(self.layers)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def below(self, layer: int) -> Iterator[None]:
        """A block in which a pass over the same text, without a cache, computes nothing between the first and a layer.

        The first layer runs all the same: inputs of other tokens are asked of it meanwhile.

        Raises:
            ValueError: no text was kept.
        """
        patched = dict(enumerate(self.layers[1:layer], 1))
        if patched and layer - 1 not in self._made:
            raise ValueError("no pass was kept to go on from")
        own = {number: vars(module).get("forward") for number, module in patched.items()}  # accelerate puts one there
        try:
            for number, module in patched.items():
                module.forward = _returning(self._made[number])
            yield
        finally:
            for number, module in patched.items():
                module.__dict__.pop("forward", None)
                if (before := own[number]) is not None:
                    module.forward = before


def _returning(made: Any) -> Any:
    return lambda *arguments, **keywords: made
