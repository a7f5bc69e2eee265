"""Attention without the count: strength x log(count of a token so far) is taken from the scores of its positions.

A head that attends to tokens by what they are gives a token that occurs m times m times the weight. Taking log m from
each of its scores removes exactly that factor, and nothing else; the first position, the attention sink, is left alone.
Works through `generate` with a cache, and in one pass over a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.attention.capture import OLD_FAMILIES, attention_modules
from harness.core.errors import UsageError

NAME = "ccmc-count-ablation"
Heads = Mapping[int, Sequence[int] | None]
"""Layer -> its heads, None for all of them."""


@dataclass
class _Ablation:
    strength: float
    heads: Heads
    ids: torch.Tensor | None = None  # [B, T] tokens so far
    valid: torch.Tensor | None = None  # [B, T] which of them are no padding
    bias: torch.Tensor | None = None  # [B, 1, t, T] for the t queries of this pass; -inf where a query must not look
    per_layer: dict[int, torch.Tensor] = field(default_factory=dict)


_active: list[_Ablation] = []


def count_bias(ids: torch.Tensor, valid: torch.Tensor, queries: int, strength: float) -> torch.Tensor:
    """What is added to the scores of the last queries of each row: [B, queries, T].

    Args:
        ids: [B, T] tokens.
        valid: bool [B, T], False for padding, which is on the left.
        queries: how many of the last positions ask.
        strength: lambda.

    Returns:
        -strength log m, m how often the key's token occurs among the positions up to the query, the first left out;
        0 for the first position; -inf for padding and for what comes after the query.
    """
    length = ids.shape[1]
    first = valid.long().cumsum(1) == 1
    counted = valid & ~first
    same = (ids[:, :, None] == ids[:, None, :]) & counted[:, :, None]  # [B, position, key]
    counts = same.long().cumsum(1)[:, length - queries :]  # [B, queries, key]
    bias = -strength * torch.log(counts.clamp(min=1).double())
    bias = bias.masked_fill(first[:, None, :], 0.0)
    asked = torch.arange(length - queries, length, device=ids.device)
    hidden = torch.arange(length, device=ids.device)[None, :] > asked[:, None]
    # a query of the padding sees itself: a row without keys would be NaN
    own = torch.arange(length, device=ids.device)[None, :] == asked[:, None]
    closed = (hidden[None] | ~valid[:, None, :]) & ~own[None]
    return bias.masked_fill(closed, -torch.inf).float()


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    ablation = _active[-1]
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if options.get("softcap") is not None or options.get("s_aux") is not None:
        raise UsageError(
            f"layer {layer}: {type(module).__name__} caps its scores, which the count ablation does not support"
        )
    window = options.get("sliding_window")
    if window is not None and key.shape[2] > window:
        raise UsageError(f"layer {layer} attends within a window of {window} tokens; use shorter texts")
    if layer in ablation.heads:
        if layer not in ablation.per_layer:
            ablation.per_layer[layer] = _of_heads(ablation, ablation.heads[layer], query.shape[1]).to(query)
        attention_mask = ablation.per_layer[layer]
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return output, None


def _of_heads(ablation: _Ablation, heads: Sequence[int] | None, count: int) -> torch.Tensor:
    """The bias of a layer's heads: [B, 1 or H, t, T]; heads that are not chosen keep their scores."""
    assert ablation.bias is not None
    if heads is None:
        return ablation.bias
    chosen = torch.zeros(count, dtype=torch.bool, device=ablation.bias.device)
    chosen[list(heads)] = True
    untouched = torch.where(torch.isinf(ablation.bias), ablation.bias, 0.0)
    return torch.where(chosen[None, :, None, None], ablation.bias, untouched)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


def check_reach(model: Any) -> None:
    """Refuse a model from whose scores the count cannot be taken.

    Raises:
        UsageError: names the architecture.
    """
    kind = model.config.get_text_config().model_type
    if not attention_modules(model) or kind in OLD_FAMILIES:
        raise UsageError(
            f"count-ablation: {kind} does not use the attention interface of transformers, so the count cannot be "
            "taken from its scores; choose another model"
        )


@contextmanager
def without_counts(model: Any, strength: float, heads: Heads) -> Iterator[None]:
    """Within this block the chosen heads of a model attend without the count.

    Args:
        model: of `loading`. Generation, with a cache or without, and passes over padded batches both work; beam search
            does not, since it reorders rows.
        strength: lambda; 1 takes the count out, 0 changes nothing.
        heads: which; layer -> heads, None for all heads of the layer.

    Raises:
        UsageError: the model's attention cannot be reached.
    """
    check_reach(model)
    ablation = _Ablation(strength, heads)

    def before(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = keywords.get("input_ids", arguments[0] if arguments else None)
        assert given is not None
        cache = keywords.get("past_key_values")
        fresh = cache is None or int(cache.get_seq_length()) == 0
        ablation.ids = given if fresh or ablation.ids is None else torch.cat([ablation.ids, given], 1)
        mask = keywords.get("attention_mask")
        ablation.valid = torch.ones_like(ablation.ids).bool() if mask is None else mask.bool()
        ablation.bias = count_bias(ablation.ids, ablation.valid, given.shape[1], strength)[:, None]
        ablation.per_layer.clear()

    hook = model.register_forward_pre_hook(before, with_kwargs=True)
    old = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    _active.append(ablation)
    try:
        yield
    finally:
        _active.pop()
        model.set_attn_implementation(old)
        hook.remove()
