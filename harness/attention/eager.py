"""Eager attention of transformers, the oracle of the capture: a model whose rows differ from it is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from harness.attention import capture
from harness.attention.capture import OLD_FAMILIES, IntArray, LayerCall, ask, attention_modules, attention_rows, listen
from harness.core.errors import UsageError, one_line
from harness.models.first_pass import FAILING
from harness.models.halves import full, rounding


def eager_rows(model: Any, ids: Sequence[int] | IntArray) -> list[torch.Tensor]:
    """[H, T, T] per layer, as eager transformers gives them for one text.

    Raises:
        UsageError: where the model gives none, or not of every layer.
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
    layers = int(model.config.get_text_config().num_hidden_layers)
    given = {layer: rows for layer, rows in enumerate(found or ()) if rows is not None}
    if len(given) < layers:
        first = min(set(range(layers)) - set(given), default=len(given))
        raise UsageError(
            f"transformers returned the attention of {len(given)} of {layers} layers, and none of layer {first}"
        )
    return [rows[0] for rows in given.values()]


# what models of other architectures raise when they are captured, or called again
REFUSING = (UsageError, *FAILING)
TOLERANCE = 1e-4  # of sums of a row, and of what must be 0


def check_rows(rows: torch.Tensor, layer: int) -> None:
    """Refuse attention that is not a distribution over the past.

    Args:
        rows: [H, T, T] of one text without padding, queries down.
        layer: for the message.

    Raises:
        UsageError: a NaN, attention below 0, on the future, or a row that does not sum to 1; names layer, head and
            position of the first.
    """
    most = rounding(rows.dtype, TOLERANCE)
    rows = full(rows)
    future, sums = rows.triu(1).abs().amax(-1), rows.sum(-1)  # [H, T]
    below = rows.amin(-1)
    faults: tuple[tuple[torch.Tensor, Callable[[tuple[int, int]], str]], ...] = (
        (~torch.isfinite(rows).all(-1), lambda at: "the attention is not a number"),
        (below < -most, lambda at: f"attention of {float(below[at]):.3g} is below 0"),
        (future > most, lambda at: f"attention of {float(future[at]):.3g} on the future"),
        ((sums - 1).abs() > most, lambda at: f"attention sums to {float(sums[at]):.6g}, not to 1"),
    )
    for mask, what in faults:
        if bool(mask.any()):
            at = first_place(mask)
            raise UsageError(f"layer {layer}, head {at[0]}, position {at[1]}: {what(at)}")


def first_place(mask: torch.Tensor) -> tuple[int, int]:
    """Head and position of the first true entry of [H, T]."""
    head, position = torch.nonzero(mask)[0].tolist()
    return head, position


def check_capture(model: Any, name: str, length: int = 24) -> None:
    """Refuse a model whose attention is not understood: captured rows must be those of eager transformers, and a layer
    that is called again must answer as it did.

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
    if getattr(config, "positions", None) == "additive":
        raise UsageError(f"{refused} with additive positions: they add to scores what no query and key hold")
    ids = np.arange(length) * 7 % config.vocab_size
    found: dict[int, torch.Tensor] = {}
    calls: list[LayerCall] = []

    def keep(call: LayerCall) -> None:
        found[call.layer] = attention_rows(call)
        calls.append(call)

    try:
        listen(model, ids, list(modules), keep)
        truth = eager_rows(model, ids)
    except REFUSING as error:
        raise UsageError(f"{refused}: {one_line(error)[:160]}") from None
    for layer in modules:
        rows = found.get(layer)
        if rows is None or rows.shape != truth[layer].shape:
            raise UsageError(f"{refused}: layer {layer} does not hand its queries and keys over")
        try:
            check_rows(truth[layer], layer)
        except UsageError as error:
            raise UsageError(f"{refused}: {error}") from None
        worst = (rows - truth[layer].to(rows.device).double()).abs().amax(-1)  # [H, T]
        most = rounding(truth[layer].dtype, 1e-3)
        if not float(worst.max()) <= most:
            head, position = first_place(worst > most)
            raise UsageError(
                f"{refused}: layer {layer}, head {head}, position {position}: rows of attention differ from those of "
                f"transformers by up to {float(worst.max()):.1e}"
            )
    for call in reversed(calls):  # the last first: none may depend on the call of an earlier layer just before
        _check_again(model, call, refused)


def check_masks(model: Any, name: str, longest: int) -> None:
    """Refuse a model whose layers see other positions of a long text than a window into the past.

    `check_capture` tries a short text; a chunk or a window may be longer than that.

    Args:
        model: a causal language model.
        name: of the model, for the message.
        longest: tokens of the longest text that may come.

    Raises:
        UsageError: names the model, its architecture, layer and position.
    """
    config = model.config.get_text_config()

    def look(layer: int, mask: torch.Tensor | None, window: int | None) -> None:
        if mask is None:
            if window is None or window >= longest:
                return
            seen = torch.ones(longest, longest, dtype=torch.bool, device=model.device).tril()
        else:
            seen = mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] > torch.finfo(mask.dtype).min / 2
        expected = torch.ones_like(seen).tril()
        if window is not None:
            expected = expected.triu(1 - window)
        if bool((seen != expected).any()):
            position = int(torch.nonzero((seen != expected).any(-1))[0, 0])
            raise UsageError(
                f"model {name!r}: the attention of {config.model_type} is not supported over {longest} tokens: layer "
                f"{layer}, position {position} sees other positions than those before it"
                + ("" if window is None else f", the last {window} of them")
            )

    capture.listen_masks(model, np.arange(longest) * 7 % config.vocab_size, look)


def check_rotation(config: Any, name: str, longest: int) -> None:
    """Refuse texts on both sides of a length from which on a model turns its queries and keys otherwise.

    LongRoPE takes other factors for a text that is longer than those it was trained on first: one surrogate cannot
    stand for both.

    Args:
        config: of the model.
        name: of the model, for the message.
        longest: tokens of the longest text that may come.

    Raises:
        UsageError: names the model and the length.
    """
    given = getattr(config, "rope_parameters", None) or {}
    for rotation in [given] if "rope_type" in given else [part for part in given.values() if isinstance(part, dict)]:
        first = rotation.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        if rotation.get("rope_type") == "longrope" and first is not None and longest > first:
            raise UsageError(
                f"experiments.heads.max_length: {longest} tokens; {name!r} ({config.model_type}, longrope) rotates "
                f"texts of more than {first} tokens otherwise than shorter ones; set it to at most {first}"
            )


def _check_again(model: Any, call: LayerCall, refused: str) -> None:
    """Surrogates ask a layer again, away from its text: each input at its position must give the query and key it gave.

    They are called in another order, so that a layer that also reads an input's neighbours, or hands on keys that
    another layer made, does not pass.

    Raises:
        UsageError: it cannot be called by itself, or what it gives depends on more than its input and its positions.
    """
    hidden = call.hidden
    most = rounding(model.dtype, 1e-3)
    if hidden is None:
        raise UsageError(f"{refused}: layer {call.layer} does not take its input as one tensor")
    places = np.random.default_rng(0).permutation(len(hidden))[: len(hidden) - 3]
    at = torch.as_tensor(places, device=hidden.device)
    try:
        with torch.inference_mode():
            again = ask(model, call, hidden[at], places)
    except REFUSING as error:
        raise UsageError(f"{refused}: layer {call.layer} cannot be called by itself: {one_line(error)[:160]}") from None
    for what in ("query", "key"):
        given, now = getattr(call, what)[:, at], getattr(again, what)
        if given.shape != now.shape or not torch.allclose(given, now, rtol=most, atol=most):
            raise UsageError(f"{refused}: layer {call.layer} gives other values of {what} when it is called by itself")
