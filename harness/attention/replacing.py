"""A surrogate in the loop: the attention rows of chosen heads are replaced while the model runs.

Only rows are replaced, or with `MeanOutput` what a head hands on; values and everything after are the model's. One code
path serves a pass over texts, padded on the left or not, and `generate` with a cache: static keys are kept per position
and nothing is computed again for old ones. Beam search reorders the rows of a batch and is not supported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.attention.capture import (
    OLD_FAMILIES,
    FloatArray,
    IntArray,
    attention_interface,
    attention_modules,
    capped_attention,
    product_terms,
)
from harness.attention.loop_rows import Product, SinkRule
from harness.attention.loop_running import Replacement, Running
from harness.attention.loop_terms import MeanOutput, TokenRows
from harness.core.errors import UsageError

NAME = "ccmc-replace"

_active: list[Running] = []


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    running, scaling = _active[-1], options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    product = Product(query, key, scaling, options.get("softcap"), options.get("sliding_window"))

    def plain() -> torch.Tensor:
        if product.softcap is not None:
            return capped_attention(query, key, value, attention_mask, {**options, "scaling": scaling}).transpose(1, 2)
        output: torch.Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **options)[0]
        return output.transpose(1, 2)

    output = running.attend(int(module.layer_idx), product, value, plain)  # type: ignore[arg-type]
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


def _interface(model: Any, running: Running) -> AbstractContextManager[None]:
    return attention_interface(model, NAME)


@contextmanager
def _own_product(model: Any, running: Running) -> Iterator[None]:
    """GPT-Neo and GPT-J take the product in a method of their own."""

    def replacing(layer: int, module: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        scaling, window = product_terms(module)

        def product(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **options: Any) -> Any:
            of = Product(query, key, scaling, None, window)
            return running.attend(layer, of, value, lambda: original(query, key, value, *rest, **options)[0]), None

        return product

    modules = attention_modules(model)
    for layer, module in modules.items():
        module._attn = replacing(layer, module, module._attn)  # type: ignore[assignment,arg-type]
    try:
        yield
    finally:
        for module in modules.values():
            del module._attn


@contextmanager
def _fast_product(model: Any, running: Running) -> Iterator[None]:
    """Falcon calls torch's fused attention itself."""
    original, old = torch.nn.functional.scaled_dot_product_attention, model.config._attn_implementation

    def product(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        of = Product(query, key, 1.0 / math.sqrt(query.shape[-1]), None, None)
        return running.attend(running.layer, of, value, lambda: original(query, key, value, **options)).contiguous()

    model.config._attn_implementation = "sdpa"
    try:
        with patch("torch.nn.functional.scaled_dot_product_attention", product):
            yield
    finally:
        model.config._attn_implementation = old


def check_reach(model: Any) -> None:
    """Refuse a model whose heads cannot be replaced.

    Raises:
        UsageError: names the architecture.
    """
    config = model.config.get_text_config()
    kind = config.model_type
    if not attention_modules(model) or kind == "ccmc-one-layer" or getattr(config, "alibi", False):
        raise UsageError(f"the heads of {kind} cannot be replaced while it runs; choose another model")
    if any(running.model is model for running in _active):
        raise UsageError("the heads of this model are being replaced already; give all replacements at once")


@contextmanager
def replace(
    model: Any,
    replaced: Sequence[Replacement],
    vocabulary: IntArray,
    *,
    sink: SinkRule = "own",
    levels: Mapping[int, FloatArray] | None = None,
    tables: dict[int, TokenRows] | None = None,
) -> Iterator[Running]:
    """Within this block chosen heads of a model attend as surrogates do.

    Args:
        model: a causal language model of transformers, of a family that the capture supports. Padding is on the left.
        replaced: what takes the place of which heads. None at all is allowed: one may look at outputs.
        vocabulary: [K] the ids of the local vocabulary, sorted. Tokens outside it get the fall-back of static inputs,
            no effects of pairs, and are counted.
        sink: how the first position is treated: "own", by what the terms say about it, and by `levels` where they say
            nothing; "levels" for all; "real", a control, with the share that the head itself gives it as it runs.
        levels: by layer, [H] log odds of the first position against all others, such as `mean_log_odds`.
        tables: what the static heads make of single tokens; give one mapping to all runs of the same static heads, and
            nothing is computed twice. It is filled, and the static heads must outlive it.

    Yields:
        what is running, with the share of tokens outside the vocabulary.

    Raises:
        UsageError: the model cannot be reached.
        ValueError: replacements that do not fit the model, each other or the rule.
    """
    check_reach(model)
    modules = attention_modules(model)
    heads = int(model.config.get_text_config().num_attention_heads)
    running = Running(model, replaced, vocabulary, tables)
    for one in replaced:
        if one.layer not in modules:
            raise ValueError(f"the model has no layer {one.layer}")
        running.prepare(one, heads, sink, None if levels is None else levels.get(one.layer))
    with attached(model, running):
        yield running


@contextmanager
def attached(model: Any, running: Running) -> Iterator[None]:
    """Within this block a model hands its tokens, layers and products to what runs inside it.

    Args:
        model: of a family that `check_reach` lets pass.
        running: whose `attend` gives the outputs of heads.
    """
    check_reach(model)

    def hook(layer: int) -> Callable[..., None]:
        def before(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            hidden = keywords.get("hidden_states", arguments[0] if arguments else None)
            assert hidden is not None
            running.before_layer(layer, module, hidden, keywords)

        return before

    body = getattr(model, model.base_model_prefix, model)
    handles = []
    for module in dict.fromkeys((model, body)):  # either may be called
        handles.append(module.register_forward_pre_hook(running.before_model, with_kwargs=True))
        handles.append(module.register_forward_hook(running.after_model, always_call=True))
    modules = attention_modules(model)
    handles += [m.register_forward_pre_hook(hook(layer), with_kwargs=True) for layer, m in modules.items()]
    kind = model.config.get_text_config().model_type
    adapter = {"falcon": _fast_product}.get(kind, _own_product if kind in OLD_FAMILIES else _interface)
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        stack.enter_context(adapter(model, running))
        _active.append(running)
        stack.callback(_active.pop)
        yield


def mean_outputs(model: Any, texts: Sequence[IntArray], layers: Sequence[int]) -> dict[int, MeanOutput]:
    """The mean output of every head of some layers over texts, the first position left out."""
    total: dict[int, torch.Tensor] = {}

    def add(layer: int, output: torch.Tensor) -> None:
        if layer in layers:
            summed = output[0, :, 1:].double().sum(1)
            total[layer] = total[layer] + summed if layer in total else summed

    body = getattr(model, model.base_model_prefix, model)
    with replace(model, [], np.zeros(1, dtype=np.int64)) as running, torch.inference_mode():
        running.on_output = add
        for ids in texts:
            body(torch.as_tensor(np.asarray(ids), device=model.device)[None], use_cache=False)
    count = sum(len(ids) - 1 for ids in texts)
    return {layer: MeanOutput((of_layer / count).cpu().numpy()) for layer, of_layer in total.items()}
