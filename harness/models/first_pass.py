"""One short pass through a model before anything is computed with it: is its output finite, and is it causal?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harness.core.errors import UsageError, one_line

LENGTH = 16
"""Tokens of the pass: enough for a mask to show, cheap on any machine."""
TOLERANCE = 1e-2
"""Of logits that must not depend on later tokens; rounding changes them by far less, a look ahead by more."""

FAILING = (TypeError, ValueError, AttributeError, NotImplementedError, IndexError, KeyError, RuntimeError)


def wrong_logits(logits: torch.Tensor) -> str | None:
    """Why logits [T, V] are no next-token distributions; None where they are.

    -inf is a probability of 0 and allowed, as long as another token of its position has more.
    """
    bad = torch.isnan(logits) | (logits == torch.inf)
    if bool(bad.any()):
        position, token = torch.nonzero(bad)[0].tolist()
        many = int(bad.any(-1).sum())
        return (
            f"its output is {float(logits[position, token])} for token {token} at position {position} ({many} of "
            f"{len(logits)} positions), although its weights are finite"
        )
    empty = (logits == -torch.inf).all(-1)
    if bool(empty.any()):
        return f"its output gives no token any probability at position {int(torch.nonzero(empty)[0])}"
    return None


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.as_tensor([ids], device=model.device)).logits[0].float().cpu()
    return found


def check_output(model: Any, ids: Sequence[int], name: str) -> None:
    """Run a model over the start of a text and refuse one that cannot be what the harness takes it for.

    Args:
        model: of `loading`.
        ids: tokens of a prompt; none: some of the vocabulary.
        name: of the model, for the message.

    Raises:
        UsageError: logits that are NaN or infinite, or that depend on later tokens; names the position.
    """
    size = int(model.config.get_text_config().vocab_size)
    text = list(ids[:LENGTH]) or [place * 7 % size for place in range(LENGTH)]
    other = [*text[:-1], (text[-1] + 1) % size]
    try:
        here, there = _logits(model, text), _logits(model, other)
    except FAILING as error:  # sizes of a config that do not go together, each in its own layer
        raise UsageError(
            f"model {name!r}: it cannot read a text of {len(text)} tokens: {one_line(error)[:160]}"
        ) from None
    if (wrong := wrong_logits(here)) is not None:
        raise UsageError(f"model {name!r}: {wrong}")
    both = torch.isfinite(here[:-1]) & torch.isfinite(there[:-1])
    change = torch.where(both, here[:-1] - there[:-1], 0.0).abs().amax(-1)
    scale = 1 + torch.where(both, here[:-1], 0.0).abs().amax(-1)
    if bool((change > TOLERANCE * scale).any()):
        position = int(torch.nonzero(change > TOLERANCE * scale)[0])
        raise UsageError(
            f"model {name!r}: its output at position {position} depends on the token at {len(text) - 1}: it looks "
            "ahead and is no causal language model (does config.json lack is_decoder: true?)"
        )
