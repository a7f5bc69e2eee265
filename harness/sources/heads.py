"""What attention heads do: their rows over a text, and their queries and keys before rotation.

A custom attention function, registered with transformers, sees query and key of every layer after rotation. The model
runs on its fast kernel beside it. Everything that a layer adds to the plain product (grouped key heads, scaling, soft
cap) is read from the call itself; a call with anything that is not understood here is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.errors import UsageError

NAME = "ccmc-capture"
FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


class _Stop(Exception):  # noqa: N818 - not an error: ends a forward pass whose rest is not needed
    """All wanted layers have been seen."""


@dataclass
class LayerCall:
    """One call of a layer's attention. query [H, T, d], key [G, T, d], both after rotation; hidden [T, D] its input."""

    layer: int
    module: torch.nn.Module
    query: torch.Tensor
    key: torch.Tensor
    scaling: float
    softcap: float | None
    window: int | None
    hidden: torch.Tensor | None = None
    rotation: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass
class _Listener:
    layers: frozenset[int] | None
    receive: Callable[[LayerCall], None]
    stop_after: int | None
    inputs: dict[int, dict[str, Any]] = field(default_factory=dict)


_active: list[_Listener] = []

_UNDERSTOOD = {
    "scaling",
    "dropout",
    "is_causal",
    "sliding_window",
    "softcap",
    "position_ids",
    "use_cache",
    "cache_position",
}


def _capture(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    listener = _active[-1]
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    extra = {k for k, v in options.items() if v is not None and v is not False and k not in _UNDERSTOOD}
    if extra & {"s_aux", "position_bias", "head_mask"}:
        raise UsageError(f"layer {layer}: {type(module).__name__} attends with {sorted(extra)}, which is not supported")
    if listener.layers is None or layer in listener.layers:
        scaling = options.get("scaling")
        listener.receive(
            LayerCall(
                layer,
                module,
                query[0],
                key[0],
                query.shape[-1] ** -0.5 if scaling is None else float(scaling),
                options.get("softcap"),
                options.get("sliding_window"),
                **listener.inputs.pop(layer, {}),
            )
        )
    if listener.stop_after is not None and layer >= listener.stop_after:
        raise _Stop
    if options.get("softcap") is not None:
        return _capped_attention(query, key, value, attention_mask, options), None
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return output, None


def _capped_attention(
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
    return (torch.softmax(scores, -1) @ value).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, _capture)
AttentionMaskInterface.register(NAME, sdpa_mask)


def attention_modules(model: Any) -> dict[int, torch.nn.Module]:
    """Layer index -> attention module of a model."""
    return {
        int(module.layer_idx): module
        for module in model.modules()
        if isinstance(getattr(module, "layer_idx", None), int) and hasattr(module, "scaling")
    }


@contextmanager
def _listening(model: Any, listener: _Listener) -> Iterator[None]:
    def before(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden = keywords.get("hidden_states", arguments[0] if arguments else None)
        rotation = keywords.get("position_embeddings")
        listener.inputs[int(module.layer_idx)] = {  # type: ignore[arg-type]
            "hidden": None if hidden is None else hidden[0],
            "rotation": None if rotation is None else (rotation[0][0], rotation[1][0]),
        }

    hooks = [m.register_forward_pre_hook(before, with_kwargs=True) for m in attention_modules(model).values()]
    old = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    _active.append(listener)
    try:
        yield
    finally:
        _active.pop()
        model.set_attn_implementation(old)
        for hook in hooks:
            hook.remove()


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
    body = getattr(model, model.base_model_prefix, model)
    listener = _Listener(frozenset(layers), receive, max(layers))
    with _listening(model, listener), torch.inference_mode(), suppress(_Stop):
        body(torch.as_tensor(np.asarray(ids), device=model.device)[None], use_cache=False)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding: turn the pairs (c, c + r/2) of the first r channels by the angle of their position.

    Args:
        x: [H, T, d] queries or keys.
        cos, sin: [T, r] of each position, r <= d even; the rest of the channels stays as it is.

    Source: Su et al. 2021, in the half-split layout of GPT-NeoX and Llama.
    """
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    left, right = turned[..., : width // 2], turned[..., width // 2 :]
    return torch.cat([turned * cos + torch.cat([-right, left], -1) * sin, rest], -1)


def scores(
    query: torch.Tensor, key: torch.Tensor, key_head: torch.Tensor, scaling: float, softcap: float | None
) -> torch.Tensor:
    """Attention scores. query [H, n, d], key [G, T, d], key_head [H] (the key head of each head) -> [H, n, T]."""
    product = (query @ key[key_head].transpose(1, 2)) * scaling
    return product if softcap is None else softcap * torch.tanh(product / softcap)


def key_heads(heads: int, groups: int) -> torch.Tensor:
    """[H] which key head each query head reads: consecutive query heads share one."""
    return torch.arange(groups).repeat_interleave(heads // groups)


def attention_rows(call: LayerCall) -> torch.Tensor:
    """The attention rows of one call: [H, T, T], causal, float64.

    Raises:
        UsageError: a window that is shorter than the text.
        ValueError: a row that is not finite; names layer, head and position.
    """
    heads, length = call.query.shape[0], call.query.shape[1]
    if call.window is not None and call.window < length:
        raise UsageError(
            f"layer {call.layer} attends within a window of {call.window} tokens and a text has {length}; "
            f"set the experiment's max_length to {call.window} or less"
        )
    raw = scores(
        call.query, call.key, key_heads(heads, call.key.shape[0]).to(call.key.device), call.scaling, call.softcap
    )
    future = torch.ones(length, length, dtype=torch.bool, device=raw.device).triu(1)
    rows = torch.softmax(raw.double().masked_fill(future, -torch.inf), dim=-1)
    finite = torch.isfinite(rows).all(-1)
    if not bool(finite.all()):
        head, position = (int(i) for i in torch.nonzero(~finite)[0])
        raise ValueError(f"layer {call.layer}, head {head}, position {position}: the attention row is not finite")
    return rows


def without_sink(rows: torch.Tensor, positions: IntArray) -> tuple[FloatArray, FloatArray]:
    """Take the first position out of attention rows and renormalise.

    Args:
        rows: [H, T, T] of `attention_rows`.
        positions: [n] query positions, all >= 1.

    Returns:
        [H, n, T - 1] rows over the positions from 1 on, and [H, n] what the first position held.
    """
    chosen = rows[:, torch.as_tensor(positions, device=rows.device)]
    kept = chosen[:, :, 1:]
    total = kept.sum(-1, keepdim=True)
    return (kept / total).cpu().numpy(), chosen[:, :, 0].cpu().numpy()


@dataclass(frozen=True)
class StaticHeads:
    """The heads of a layer, asked with one fixed input per token of the local vocabulary.

    Attributes:
        query: [H, K, d] before rotation; key: [G, K, d]; key_head: [H].
        cos, sin: [T, r] rotation of each position, as long as the longest text.
        scaling, softcap: of the scores.
        seen: [K] did the token's input come from training texts (or from the embedding itself, in the first layer)?
    """

    query: torch.Tensor
    key: torch.Tensor
    key_head: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    scaling: float
    softcap: float | None
    seen: np.ndarray[Any, np.dtype[np.bool_]]


def _ask(
    model: Any, module: torch.nn.Module, hidden: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]
) -> LayerCall:
    """Run one attention module alone on given inputs [K, D] as far as its query and key."""
    found: list[LayerCall] = []
    listener = _Listener(None, found.append, -1)
    cos, sin = rotation
    with _listening(model, listener), torch.inference_mode(), suppress(_Stop):
        module(hidden_states=hidden[None], position_embeddings=(cos[None], sin[None]), attention_mask=None)
    return found[0]


def unrotated(model: Any, layer: int, hidden: torch.Tensor, width: int) -> LayerCall:
    """Query and key of a layer for inputs [K, D], with its projections and norms but no rotation (angle 0)."""
    module = attention_modules(model)[layer]
    one = torch.ones(len(hidden), width, device=hidden.device, dtype=hidden.dtype)
    return _ask(model, module, hidden, (one, torch.zeros_like(one)))


def probe(model: Any, name: str, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Check that a model's heads can be read here, and return its rotation [T, r] for positions 0 to length - 1.

    A short text is run; the queries and keys that the first layer made are made again from its input, turned by
    `rotate`, and must agree.

    Raises:
        UsageError: names the model and what is not supported about it.
    """
    kind = model.config.model_type
    if not attention_modules(model):
        raise UsageError(f"model {name!r}: {kind} does not use the attention interface of transformers; not supported")
    ids = np.arange(length) % model.config.get_text_config().vocab_size
    calls: list[LayerCall] = []
    listen(model, ids, [0], calls.append)
    if not calls:
        raise UsageError(f"model {name!r}: {kind} does not use the attention interface of transformers; not supported")
    call = calls[0]
    if call.rotation is None or call.hidden is None:
        raise UsageError(
            f"model {name!r}: {kind} has no rotary positions in its first layer; heads of it are not supported"
        )
    cos, sin = call.rotation
    plain = unrotated(model, 0, call.hidden, cos.shape[-1])
    for what, ours, theirs in (("queries", plain.query, call.query), ("keys", plain.key, call.key)):
        error = float((rotate(ours, cos, sin) - theirs).abs().max() / theirs.abs().max())
        if not error < 1e-4:
            raise UsageError(
                f"model {name!r}: {kind} turns its {what} in a way that is not supported (relative error {error:.1e})"
            )
    return cos, sin


def embedding_inputs(model: Any, ids: IntArray) -> torch.Tensor:
    """What the first layer's attention gets for each token: [K, D], exact wherever a token stands.

    Every token is run as a text of its own; in a rotary model the input of layer 0 does not depend on the position.
    """
    found: list[torch.Tensor] = []
    body = getattr(model, model.base_model_prefix, model)

    def keep(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden = keywords["hidden_states"] if "hidden_states" in keywords else arguments[0]
        found.append(hidden[:, 0])
        raise _Stop

    hook = attention_modules(model)[0].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.inference_mode(), suppress(_Stop):
            body(torch.as_tensor(ids, device=model.device)[:, None], use_cache=False)
    finally:
        hook.remove()
    return found[0]


class StaticInputs:
    """Mean normalised residual stream of each token, per layer, over training texts; the first position left out.

    Args:
        vocab_size: size K of the local vocabulary.
        layers: which layers.
        width: size D of the residual stream.
    """

    def __init__(self, vocab_size: int, layers: Sequence[int], width: int) -> None:
        self.total = {layer: np.zeros((vocab_size, width)) for layer in layers}
        self.count = np.zeros(vocab_size)

    def add(self, call: LayerCall, tokens: IntArray) -> None:
        """Add the inputs of one layer over one text; tokens [T] in local ids."""
        assert call.hidden is not None
        np.add.at(self.total[call.layer], tokens[1:], call.hidden[1:].double().cpu().numpy())

    def count_text(self, tokens: IntArray) -> None:
        """Count the tokens of one text, once for all layers."""
        np.add.at(self.count, tokens[1:], 1.0)

    def inputs(self, layer: int, embedding: FloatArray) -> FloatArray:
        """[K, D] the static input of every token at a layer.

        A token that no training text holds gets what a linear map from its first-layer input predicts; the map is
        fitted by ridge regression to the tokens that have a mean, each weighted by its count.

        Args:
            layer: which layer. Layer 0 has the exact inputs for every token.
            embedding: [K, D] the exact first-layer inputs.
        """
        if layer == 0:
            return embedding
        seen = self.count > 0
        mean = self.total[layer][seen] / self.count[seen, None]
        weight = np.minimum(self.count[seen], 20.0)[:, None]  # a comma must not outvote a thousand rare words
        centre_x = np.average(embedding[seen], axis=0, weights=weight[:, 0])
        centre_y = np.average(mean, axis=0, weights=weight[:, 0])
        x, y = embedding[seen] - centre_x, mean - centre_y
        gram = x.T @ (weight * x)
        gram[np.diag_indices_from(gram)] += 0.1 * np.trace(gram) / len(gram)
        linear = np.linalg.solve(gram, x.T @ (weight * y))
        inputs = (embedding - centre_x) @ linear + centre_y
        inputs[seen] = mean
        return inputs
