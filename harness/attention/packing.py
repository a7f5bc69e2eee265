"""Several short texts in one forward pass, each for itself: positions restart, and no query sees another text.

transformers takes positions that restart for the start of another text and masks accordingly; some families do not,
and read one text at a time. A probe finds out which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from harness.attention.capture import OLD_FAMILIES, IntArray, LayerCall, listen, listen_packed

Receive = Callable[[LayerCall, int], None]
WIDEST = 512  # tokens: attention under a mask is paid for all pairs of a window, those of two texts too


def window_width(model: Any, length: int) -> int | None:
    """How many tokens of short texts go through a model at once, at most `length`; None where it keeps none apart."""
    return min(length, WIDEST) if packs(model) else None


def packs(model: Any) -> bool:
    """Does a model keep texts apart when only their positions do? Tried on two short ones, at its last layer."""
    config = model.config.get_text_config()
    if config.model_type in OLD_FAMILIES:
        return False
    texts = [np.arange(n) * 5 % config.vocab_size for n in (5, 7)]
    last = int(config.num_hidden_layers) - 1
    alone: list[LayerCall] = []
    together: list[LayerCall] = []
    for text in texts:
        listen(model, text, [last], alone.append)
    try:
        listen_packed(model, texts, [last], lambda call, _: together.append(call))
    except TypeError:  # takes no positions
        return False
    return all(
        torch.allclose(getattr(a, what), getattr(b, what), atol=1e-4, rtol=1e-4)
        for a, b in zip(alone, together, strict=True)
        for what in ("query", "key")
    )


def windows(lengths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Numbers of consecutive texts that fit into a window together; a longer text has one of its own."""
    window: list[int] = []
    for number, length in enumerate(lengths):
        if window and sum(lengths[k] for k in window) + length > width:
            yield window
            window = []
        window.append(number)
    if window:
        yield window


def listen_windows(
    model: Any, texts: Sequence[IntArray], layers: Sequence[int], receive: Receive, width: int | None
) -> None:
    """Run a model over texts, several at once, and hand over each wanted layer's call of each text.

    Args:
        model: a causal language model of transformers.
        texts: [T] token ids each.
        layers: which layers.
        receive: called with the call and the number of its text; of each layer, texts come in their order.
        width: tokens of a window; None meets one text at a time, as a model needs where `packs` says no.
    """
    lengths = [len(text) for text in texts]
    for window in windows(lengths, 0 if width is None else width):
        if len(window) == 1:
            listen(model, texts[window[0]], layers, partial(_hand, receive, window, at=0))
        else:
            listen_packed(model, [texts[k] for k in window], layers, partial(_hand, receive, window))


def _hand(receive: Receive, window: list[int], call: LayerCall, at: int) -> None:
    receive(call, window[at])
