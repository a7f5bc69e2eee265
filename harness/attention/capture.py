"""What attention heads do over a text: queries and keys of every layer, as the model itself makes them.

A custom attention function, registered with transformers, sees query and key of every layer after rotation and norms;
the model runs on its fast kernel beside it. Three older families and the one-layer model do not use that registry and
are captured where the layer takes the product itself. Everything that a layer adds to the plain product (grouped key
heads, scaling, soft cap, window) is read from the call; `eager.check_capture` compares the resulting rows with those of
eager transformers, so anything that is not understood here is refused by name instead of being measured wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.core.errors import UsageError
from harness.models.halves import full

NAME = "ccmc-capture"
FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


class _Stop(Exception):  # noqa: N818 - not an error: ends a forward pass whose rest is not needed
    """All wanted layers have been seen."""


@dataclass
class LayerCall:
    """One call of a layer's attention, for one text.

    Attributes:
        layer, module: which.
        query: [H, T, d] and key: [G, T, d], after rotation and norms; of models in 16 bits as float32, as is hidden.
        scaling, softcap, window: of the scores; window counts the positions that a query sees, itself included.
        hidden: [T, D] the input of the module.
        options: the keyword arguments that the module was called with, to call it again.
    """

    layer: int
    module: torch.nn.Module
    query: torch.Tensor
    key: torch.Tensor
    scaling: float
    softcap: float | None
    window: int | None
    hidden: torch.Tensor | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def bare(self) -> LayerCall:
        """How the layer was called, without what it was called on."""
        return replace(self, query=self.query[:, :0].clone(), key=self.key[:, :0].clone(), hidden=None)


@dataclass
class _Listener:
    layers: frozenset[int] | None
    receive: Callable[[LayerCall, int], None]
    stop_after: int | None
    spans: Sequence[tuple[int, int, int | None]] = ((0, 0, None),)  # row, start and stop of each text
    masks: Callable[[int, torch.Tensor | None, int | None], None] | None = None
    current: tuple[int, torch.nn.Module, Any, dict[str, Any]] | None = None

    def hear(self, query: torch.Tensor, key: torch.Tensor, scaling: float, softcap: Any, window: Any) -> None:
        """Hand over one layer's queries [B, H, L, d] and keys [B, G, L, d]."""
        if self.current is None:
            raise UsageError("a module attends that is none of the model's layers")
        layer, module, hidden, options = self.current
        if self.layers is None or layer in self.layers:
            for number, (row, start, stop) in enumerate(self.spans):
                at = slice(start, stop)
                of_text = None if hidden is None else full(hidden[row, at])
                self.receive(
                    LayerCall(
                        layer, module, full(query[row, :, at]), full(key[row, :, at]), scaling, softcap, window,
                        of_text, _of_row(options, row, at),
                    ),
                    number,
                )  # fmt: skip
        if self.stop_after is not None and layer >= self.stop_after:
            raise _Stop


def _each_part(embeddings: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Rotations after a change: cosines and sines [B, T, d], or complex numbers [B, T, d / 2], as DeepSeek has them."""
    return change(embeddings) if isinstance(embeddings, torch.Tensor) else tuple(change(part) for part in embeddings)


def _of_row(options: dict[str, Any], row: int, at: slice) -> dict[str, Any]:
    """The part of a module's arguments that belongs to one text of a batch."""
    kept = {
        k: v
        for k, v in options.items()
        if k not in {"attention_mask", "past_key_values", "layer_past", "hidden_states"}
    }
    if kept.get("position_embeddings") is not None:
        kept["position_embeddings"] = _each_part(
            kept["position_embeddings"], lambda part: part[min(row, len(part) - 1) : min(row, len(part) - 1) + 1, at]
        )
    if kept.get("position_ids") is not None:
        ids = kept["position_ids"]
        kept["position_ids"] = ids[min(row, len(ids) - 1) : min(row, len(ids) - 1) + 1, at]
    return kept


_active: list[_Listener] = []
_UNKNOWN = {"s_aux", "position_bias", "head_mask"}


def _capture(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    extra = {name for name in _UNKNOWN & set(options) if options[name] is not None}
    if extra:
        raise UsageError(f"{type(module).__name__} attends with {sorted(extra)}, which is not supported")
    scaling = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    listener, window = _active[-1], options.get("sliding_window")
    if listener.masks is not None and listener.current is not None:
        listener.masks(listener.current[0], attention_mask, window)
    listener.hear(query, key, scaling, options.get("softcap"), window)
    if options.get("softcap") is not None:
        return capped_attention(query, key, value, attention_mask, {**options, "scaling": scaling}), None
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return output, None


def capped_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, options: dict[str, Any]
) -> torch.Tensor:
    """Attention with a soft cap, which the stock kernel refuses. [B, H, T, d] -> [B, T, H, d]."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.transpose(2, 3)) * options["scaling"]
    scores = options["softcap"] * torch.tanh(scores / options["softcap"])
    rows, columns = scores.shape[-2:]
    if mask is None:
        mask = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril(columns - rows)
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return (torch.softmax(scores, -1).nan_to_num(0.0) @ value).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, _capture)
AttentionMaskInterface.register(NAME, sdpa_mask)

# they do not ask the registry of attention functions
OLD_FAMILIES = {
    "gpt_neo": "GPTNeoSelfAttention",
    "gptj": "GPTJAttention",
    "falcon": "FalconAttention",
    "ccmc-one-layer": "PairScores",
}


def attention_modules(model: Any) -> dict[int, torch.nn.Module]:
    """Layer index -> attention module of a model; empty where it has none that can be captured."""
    kind = model.config.get_text_config().model_type
    if kind in OLD_FAMILIES:
        found = [m for m in model.modules() if type(m).__name__ == OLD_FAMILIES[kind]]
        return dict(enumerate(found))
    return {
        int(module.layer_idx): module
        for module in model.modules()
        if isinstance(getattr(module, "layer_idx", None), int) and hasattr(module, "scaling")
    }


def product_terms(module: Any) -> tuple[float, int | None]:
    """Scaling and window of a module that takes the product in a method `_attn` of its own."""
    local = getattr(module, "attention_type", "global") == "local"
    scaling = 1.0 / module.scale_attn if hasattr(module, "scale_attn") else 1.0
    return float(scaling), module.config.window_size if local else None


@contextmanager
def attention_interface(model: Any, name: str) -> Iterator[None]:
    """Within this block the attention of a model is what is registered under a name."""
    old = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(old)


def _interface(model: Any) -> AbstractContextManager[None]:
    return attention_interface(model, NAME)


@contextmanager
def _own_product(model: Any) -> Iterator[None]:
    """GPT-Neo, GPT-J and the one-layer model take the product in a method of their own."""

    def hearing(module: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        scaling, window = product_terms(module)

        def product(query: torch.Tensor, key: torch.Tensor, *rest: Any, **options: Any) -> Any:
            _active[-1].hear(query, key, scaling, None, window)
            return original(query, key, *rest, **options)

        return product

    before = [(module, vars(module).get("_attn")) for module in attention_modules(model).values()]
    for module, _ in before:
        module._attn = hearing(module, module._attn)  # type: ignore[assignment,arg-type]
    try:
        yield
    finally:
        for module, outer in before:
            del module._attn
            if outer is not None:  # a layer is called again while the model is being captured
                module._attn = outer


@contextmanager
def _fast_product(model: Any) -> Iterator[None]:
    """Falcon calls torch's fused attention itself."""
    original, old = torch.nn.functional.scaled_dot_product_attention, model.config._attn_implementation

    def product(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        _active[-1].hear(query, key, 1.0 / math.sqrt(query.shape[-1]), None, None)
        return original(query, key, value, **options)

    model.config._attn_implementation = "sdpa"
    try:
        with patch("torch.nn.functional.scaled_dot_product_attention", product):
            yield
    finally:
        model.config._attn_implementation = old


@contextmanager
def _listening(model: Any, listener: _Listener) -> Iterator[None]:
    modules = attention_modules(model)

    def hook(layer: int) -> Callable[..., None]:
        def before(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            hidden = keywords.get("hidden_states", arguments[0] if arguments else None)
            listener.current = (layer, module, hidden, keywords)

        return before

    hooks = [module.register_forward_pre_hook(hook(layer), with_kwargs=True) for layer, module in modules.items()]
    kind = model.config.get_text_config().model_type
    adapter = {"falcon": _fast_product}.get(kind, _own_product if kind in OLD_FAMILIES else _interface)
    _active.append(listener)
    try:
        with adapter(model), torch.inference_mode(), suppress(_Stop):
            yield
    finally:
        _active.pop()
        for handle in hooks:
            handle.remove()


def listen(
    model: Any, ids: Sequence[int] | IntArray, layers: Sequence[int], receive: Callable[[LayerCall], None]
) -> None:
    """Run a model over one text, as far as the last wanted layer, and hand over each wanted layer's call.

    Args:
        model: a causal language model of transformers.
        ids: [T] token ids; one text, not padded.
        layers: which layers.
        receive: called once per wanted layer, in their order.
    """
    listen_batch(model, [ids], layers, lambda call, _: receive(call))


def listen_batch(
    model: Any,
    texts: Sequence[Sequence[int] | IntArray],
    layers: Sequence[int],
    receive: Callable[[LayerCall, int], None],
) -> None:
    """The same for several texts at once, padded on the left; `receive` gets the call and the number of the text."""
    body = getattr(model, model.base_model_prefix, model)
    width = max(len(ids) for ids in texts)
    tokens = torch.zeros(len(texts), width, dtype=torch.long, device=model.device)  # [B, L]
    mask = torch.zeros_like(tokens)
    for row, ids in enumerate(texts):
        tokens[row, width - len(ids) :] = torch.as_tensor(np.asarray(ids))
        mask[row, width - len(ids) :] = 1
    spans = [(row, width - len(ids), None) for row, ids in enumerate(texts)]
    padding: dict[str, Any] = {}
    if any(start for _, start, _ in spans):
        padding = {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    with _listening(model, _Listener(frozenset(layers), receive, max(layers), spans)):
        body(tokens, use_cache=False, **padding)


def listen_through(
    model: Any, ids: Sequence[int] | IntArray, layers: Sequence[int], receive: Callable[[LayerCall], None]
) -> torch.Tensor:
    """As `listen`, on to the end of the model; returns its logits [T, vocabulary]."""
    with _listening(model, _Listener(frozenset(layers), lambda call, _: receive(call), None)):
        logits: torch.Tensor = model(torch.as_tensor(ids, device=model.device)[None], use_cache=False).logits[0]
    return logits


def listen_masks(
    model: Any, ids: Sequence[int] | IntArray, receive: Callable[[int, torch.Tensor | None, int | None], None]
) -> None:
    """Run a model over one text and hand over what each layer may see: layer, mask [1, 1, T, T] or None, and window.

    None is a mask that hides the future alone. The older families take theirs from elsewhere, and none comes.
    """
    body = getattr(model, model.base_model_prefix, model)
    with _listening(model, _Listener(frozenset(), lambda call, _: None, None, masks=receive)):
        body(torch.as_tensor(np.asarray(ids), device=model.device)[None], use_cache=False)


def listen_packed(
    model: Any, texts: Sequence[IntArray], layers: Sequence[int], receive: Callable[[LayerCall, int], None]
) -> None:
    """The same for several texts in one row, one after the other; positions restart with each (see `packing`)."""
    body = getattr(model, model.base_model_prefix, model)
    ends = np.cumsum([len(ids) for ids in texts]).tolist()
    spans = [(0, end - len(ids), end) for ids, end in zip(texts, ends, strict=True)]
    tokens = torch.as_tensor(np.concatenate(texts), device=model.device)[None]
    positions = torch.cat([torch.arange(len(ids), device=model.device) for ids in texts])[None]
    with _listening(model, _Listener(frozenset(layers), receive, max(layers), spans)):
        body(tokens, position_ids=positions, use_cache=False)


def ask(model: Any, call: LayerCall, hidden: torch.Tensor, positions: Sequence[int] | IntArray) -> LayerCall:
    """Call a layer's attention again on other inputs, as far as its queries and keys.

    Args:
        model: the model of the call.
        call: an earlier call of the layer, over a text at least as long as the largest position.
        hidden: [n, D] inputs.
        positions: [n] the position of each input; all 0 leaves rotary inputs unrotated.
    """
    found: list[LayerCall] = []
    options, at = dict(call.options), torch.as_tensor(np.asarray(positions), device=hidden.device)
    if options.get("position_embeddings") is not None:
        options["position_embeddings"] = _each_part(options["position_embeddings"], lambda part: part[:, at])
    if "position_ids" in options:  # where a layer got None, it counted from 0
        options["position_ids"] = at[None]
    hidden = hidden.to(next((weight.dtype for weight in call.module.parameters()), hidden.dtype))
    with _listening(model, _Listener(None, lambda heard, _: found.append(heard), -1)):
        call.module(hidden[None], attention_mask=None, **options)
    return found[0]


def key_heads(heads: int, groups: int) -> torch.Tensor:
    """[H] which key head each query head reads: consecutive query heads share one."""
    return torch.arange(groups).repeat_interleave(heads // groups)


def scores(
    query: torch.Tensor, key: torch.Tensor, key_head: torch.Tensor, scaling: float, softcap: float | None
) -> torch.Tensor:
    """Attention scores. query [H, n, d], key [G, T, d], key_head [H] (the key head of each head) -> [H, n, T]."""
    product = (query @ key[key_head].transpose(1, 2)) * scaling
    return product if softcap is None else softcap * torch.tanh(product / softcap)


def visible_scores(call: LayerCall) -> torch.Tensor:
    """[H, T, T] float64 scores of one call, -inf where a query does not see a key.

    Raises:
        ValueError: a score that is not finite; names layer, head and position.
    """
    heads, length = call.query.shape[0], call.query.shape[1]
    head = key_heads(heads, call.key.shape[0]).to(call.key.device)
    raw = scores(call.query, call.key, head, call.scaling, call.softcap).double()
    finite = torch.isfinite(raw).all(-1)
    if not bool(finite.all()):
        at, position = (int(i) for i in torch.nonzero(~finite)[0])
        raise ValueError(f"layer {call.layer}, head {at}, position {position}: the attention scores are not finite")
    outside = torch.ones(length, length, dtype=torch.bool, device=raw.device).triu(1)
    if call.window is not None and call.window < length:
        outside |= torch.ones_like(outside).tril(-call.window)
    return raw.masked_fill(outside, -torch.inf)


def attention_rows(call: LayerCall) -> torch.Tensor:
    """The attention rows of one call: [H, T, T], causal, float64.

    Raises:
        ValueError: a score that is not finite; names layer, head and position.
    """
    return torch.softmax(visible_scores(call), dim=-1)
