"""Eager attention of transformers, the oracle of the capture: a model whose rows differ from it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from harness.errors import UsageError, one_line
from harness.sources.capture import OLD_FAMILIES, IntArray, LayerCall, attention_modules, attention_rows, listen


def eager_rows(model: Any, ids: Sequence[int] | IntArray) -> list[torch.Tensor]:
    """[H, T, T] per layer, as eager transformers gives them for one text.

    Raises:
        UsageError: where the model gives none.
    """
    old = model.config._attn_implementation
    if model.config.get_text_config().model_type in OLD_FAMILIES:
        model.config._attn_implementation = "eager"
    else:
        model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            tokens = torch.as_tensor(np.asarray(ids), device=model.device)[None]
            found = model(tokens, output_attentions=True, use_cache=False).attentions
    finally:
        if model.config.get_text_config().model_type in OLD_FAMILIES:
            model.config._attn_implementation = old
        else:
            model.set_attn_implementation(old)
    if not found:
        raise UsageError(f"{model.config.model_type}: transformers returned no attentions")
    return [layer[0] for layer in found]


def check_capture(model: Any, name: str, length: int = 24) -> None:
    """Refuse a model whose attention is not understood: captured rows must be those of eager transformers.

    Args:
        model: a causal language model.
        name: of the model, for the message.
        length: of the text that is tried.

    Raises:
        UsageError: names the model, its architecture and what is wrong.
    """
    config = model.config.get_text_config()
    refused = f"model {name!r}: the attention of {config.model_type} is not supported"
    modules = attention_modules(model)
    if not modules or getattr(config, "alibi", False):
        raise UsageError(f"{refused}: no layer hands its queries and keys over")
    lacking = set(range(int(config.num_hidden_layers))) - set(modules)
    if lacking:
        raise UsageError(f"{refused}: layer {min(lacking)} has no attention of that kind")
    ids = np.arange(length) * 7 % config.vocab_size
    found: dict[int, torch.Tensor] = {}

    def keep(call: LayerCall) -> None:
        found[call.layer] = attention_rows(call)

    try:
        listen(model, ids, list(modules), keep)
        truth = eager_rows(model, ids)
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise UsageError(f"{refused}: {one_line(error)[:160]}") from None
    for layer in modules:
        rows = found.get(layer)
        if rows is None or rows.shape != truth[layer].shape:
            raise UsageError(f"{refused}: layer {layer} does not hand its queries and keys over")
        worst = float((rows - truth[layer].double()).abs().max())
        if not worst <= 1e-3:
            raise UsageError(f"{refused}: rows of layer {layer} differ from those of transformers by {worst:.1e}")
