"""Heads with one fixed input per token: what a layer would attend to if it saw tokens and positions alone.

The static input of a token at a layer is its mean normalised residual stream over training texts. In the first layer
nothing has to be estimated: its inputs are a function of token and position, and are computed as the model does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from harness.attention.capture import FloatArray, IntArray, LayerCall, ask, attention_modules


class _Stop(Exception):  # noqa: N818 - not an error: ends a forward pass whose rest is not needed
    """The input of the first layer has been seen."""


def first_layer_inputs(model: Any, ids: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
    """What the first layer's attention gets: [B, T, D] for token ids [B, T], at positions [B, T] or 0 to T - 1."""
    found: list[torch.Tensor] = []
    body = getattr(model, model.base_model_prefix, model)

    def keep(module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found.append(keywords["hidden_states"] if "hidden_states" in keywords else arguments[0])
        raise _Stop

    hook = attention_modules(model)[0].register_forward_pre_hook(keep, with_kwargs=True)
    placed = {} if positions is None else {"position_ids": positions.to(model.device)}
    try:
        with torch.inference_mode(), suppress(_Stop):
            body(ids.to(model.device), use_cache=False, **placed)
    finally:
        hook.remove()
    return found[0]


def has_learned_positions(model: Any, vocab_size: int, length: int) -> bool:
    """Does the first layer's input of a token depend on its position?"""
    ids = torch.full((1, length), vocab_size // 2, dtype=torch.long)
    inputs = first_layer_inputs(model, ids)[0]
    return not torch.allclose(inputs, inputs[:1].expand_as(inputs), atol=1e-6)


def embedding_inputs(model: Any, ids: IntArray, positions: IntArray, block: int = 4096) -> FloatArray:
    """The first layer's input of each token, averaged over positions: [K, D].

    Args:
        model: a causal language model.
        ids: [K] tokens in the model's vocabulary.
        positions: [P] over which to average; one is enough where positions do not enter the input.
        block: how many (token, position) pairs to compute at once.
    """
    per = max(1, block // len(positions))
    parts = []
    for first in range(0, len(ids), per):
        tokens = torch.as_tensor(ids[first : first + per])[:, None].expand(-1, len(positions)).contiguous()
        if len(positions) == 1:
            inputs = first_layer_inputs(model, tokens)
        else:
            inputs = first_layer_inputs(model, tokens, torch.as_tensor(positions)[None].expand(len(tokens), -1))
        parts.append(inputs.double().mean(dim=1).cpu().numpy())
    return np.concatenate(parts)


@dataclass(frozen=True)
class FallBack:
    """The static input of a token that no training text holds: a linear map of its first-layer input.

    Attributes:
        centre_x, centre_y: [D] means of first-layer inputs, and of static inputs.
        linear: [D, D].
    """

    centre_x: FloatArray
    centre_y: FloatArray
    linear: FloatArray

    def inputs(self, embedding: FloatArray) -> FloatArray:
        """[n, D] static inputs from first-layer inputs [n, D]."""
        found: FloatArray = (embedding - self.centre_x) @ self.linear + self.centre_y
        return found


PULL = 4.0  # a softmax pays more for keys that scatter than for keys that are all pulled to the middle
MOST_PULL = 100.0  # occurrences


class StaticInputs:
    """Mean normalised residual stream of each token, per layer, over training texts.

    The first position is left out, whichever token it holds, and has a mean of its own: the sink.

    Args:
        vocab_size: size K of the local vocabulary.
        layers: which layers.
        width: size D of the residual stream.
        length: of the longest training text; None where positions do not enter the inputs, and nothing is kept of them.
    """

    def __init__(self, vocab_size: int, layers: Sequence[int], width: int, length: int | None) -> None:
        self.total = {layer: torch.zeros(vocab_size, width, dtype=torch.float64) for layer in layers}
        self.square = dict.fromkeys(layers, 0.0)
        self.first = {layer: np.zeros(width) for layer in layers}
        self.placed = {layer: np.zeros((length, width)) for layer in layers} if length is not None else {}
        self.count = np.zeros(vocab_size)
        self.texts: list[IntArray] = []

    def add(self, call: LayerCall, tokens: IntArray) -> None:
        """Add the inputs of one layer over one text; tokens [T] in local ids."""
        assert call.hidden is not None
        hidden = call.hidden.double().cpu()
        self.total[call.layer].index_add_(0, torch.as_tensor(tokens[1:]), hidden[1:])
        self.square[call.layer] += float(hidden[1:].square().sum())
        self.first[call.layer] += hidden[0].numpy()
        if self.placed:
            self.placed[call.layer][1 : len(tokens)] += hidden[1:].numpy()

    def count_text(self, tokens: IntArray) -> None:
        """Count the tokens of one text, once for all layers."""
        np.add.at(self.count, tokens[1:], 1.0)
        self.texts.append(tokens)

    def sink(self, layer: int) -> FloatArray:
        """[D] the mean input of the first position."""
        mean: FloatArray = self.first[layer] / len(self.texts)
        return mean

    def inputs(self, layer: int, embedding: FloatArray) -> FloatArray:
        """[K, D] the static input of every token at a layer.

        The mean over its occurrences in training texts, among which its fall-back counts as a few more: most types of
        a text come once or twice in all, and the mean of two is mostly the noise of two contexts. A token that no
        training text holds gets the fall-back alone, which is what a linear map from its first-layer input predicts;
        the map is fitted by ridge regression to the tokens that have a mean, each weighted by its count.
        Where only one token has a mean there is nothing to fit, and that is everyone's fall-back.

        Args:
            layer: which layer. Layer 0 has the exact inputs for every token.
            embedding: [K, D] the first-layer inputs.
        """
        return self.inputs_and_fall_back(layer, embedding)[0]

    def inputs_and_fall_back(self, layer: int, embedding: FloatArray) -> tuple[FloatArray, FallBack | None]:
        """`inputs`, and the map that gives those of other tokens; None in layer 0, which needs none."""
        if layer == 0:
            return embedding, None
        seen, total = self.count > 0, self.total[layer].numpy()
        mean = total[seen] / self.count[seen, None]
        weight = np.minimum(self.count[seen], 20.0)[:, None]  # a comma must not outvote a thousand rare words
        centre_x = np.average(embedding[seen], axis=0, weights=weight[:, 0])
        centre_y = np.average(mean, axis=0, weights=weight[:, 0])
        x, y = embedding[seen] - centre_x, mean - centre_y
        gram = x.T @ (weight * x)
        gram[np.diag_indices_from(gram)] += 0.1 * np.trace(gram) / len(gram)
        if not gram.any():
            nothing = FallBack(centre_x, centre_y, np.zeros((len(centre_x), len(centre_y))))
            return np.broadcast_to(centre_y, (len(embedding), len(centre_y))).copy(), nothing
        linear = np.asarray(np.linalg.solve(gram, x.T @ (weight * y)), dtype=np.float64)
        leverage = np.einsum("ij,ji->i", x, np.linalg.solve(gram, x.T)) * weight[:, 0]
        missed = np.square(y - x @ linear).sum(1) / np.square(np.maximum(1.0 - leverage, 1e-6))
        pull = self._pull(layer, mean, missed, weight[:, 0])
        of_others = FallBack(centre_x, centre_y, linear)
        fall_back = of_others.inputs(embedding)
        inputs: FloatArray = (total + pull * fall_back) / np.maximum(self.count + pull, 1e-300)[:, None]
        inputs[~seen] = fall_back[~seen]
        return inputs, of_others

    def _pull(self, layer: int, mean: FloatArray, missed: FloatArray, weight: FloatArray) -> float:
        """How many occurrences the fall-back of a token counts as.

        The variance of a token's inputs between its contexts over that of its mean about the fall-back would make the
        squared error least (the components of variance, Searle 1971); here it counts `PULL` times as much. Inputs
        that are a function of the token alone get 0.

        Args:
            layer: which.
            mean: [S, D] of the tokens seen.
            missed: [S] squared distance of each mean to its fall-back, had the token not been seen (leave one out).
            weight: [S] of the tokens.
        """
        count = self.count[self.count > 0]
        again = float(count.sum()) - len(count)
        if again == 0:
            return PULL
        within = max(self.square[layer] - float(count @ np.square(mean).sum(1)), 0.0) / again
        between = float(np.average(missed - within / count, weights=weight))
        return PULL * within / between if between * MOST_PULL > PULL * within else MOST_PULL

    def position_effect(self, layer: int, inputs: FloatArray) -> FloatArray:
        """[T, D] mean deviation of the inputs at each position from the static inputs of their tokens.

        Shrunk towards 0 as if one more text had none; positions beyond the training texts take the last one's.
        """
        expected, texts = np.zeros_like(self.placed[layer]), np.zeros(len(self.placed[layer]))
        for tokens in self.texts:
            expected[1 : len(tokens)] += inputs[tokens[1:]]
            texts[1 : len(tokens)] += 1.0
        return (self.placed[layer] - expected) / (texts + 1.0)[:, None]


@dataclass(frozen=True)
class StaticHeads:
    """The heads of a layer, given one fixed input per token of the local vocabulary.

    Attributes:
        model: the model that the layer belongs to.
        call: a call of the layer over the longest text: how the module is called, and where.
        ids: [K] the local vocabulary in the model's own ids.
        inputs: [K, D] static inputs, or [K + 1, D] with that of the first position last.
        effect: [T, D] what positions add to them in models with learned positions, or None.
        at_start: the call of all inputs at position 0: queries [H, K, d] and keys [G, K, d] without positions.
        places: positions over which first-layer inputs are averaged.
        fall_back: gives tokens outside the vocabulary an input; None where first-layer inputs are the inputs.
    """

    model: Any
    call: LayerCall
    ids: IntArray
    inputs: torch.Tensor
    effect: torch.Tensor | None
    at_start: LayerCall
    places: IntArray | None = None
    fall_back: FallBack | None = None

    @property
    def sink_type(self) -> int | None:
        """The row of the first position among those of `at_start`; None where it has none."""
        return len(self.ids) if self.at_start.key.shape[1] > len(self.ids) else None

    def outside(self, ids: IntArray) -> tuple[torch.Tensor, LayerCall]:
        """Inputs [n, D] of tokens outside the vocabulary, in the model's ids, and the call of them at position 0.

        Raises:
            ValueError: nothing gives them an input.
        """
        if self.places is None or (self.fall_back is None and self.call.layer > 0):
            raise ValueError(f"layer {self.call.layer}: nothing gives an input to token {int(ids[0])}, which is unseen")
        inputs = embedding_inputs(self.model, ids, self.places)
        inputs = inputs if self.fall_back is None else self.fall_back.inputs(inputs)
        hidden = torch.as_tensor(inputs, dtype=self.inputs.dtype, device=self.inputs.device)
        return hidden, ask(self.model, self.call, hidden, np.zeros(len(hidden), dtype=np.int64))

    def of_text(self, tokens: IntArray) -> LayerCall:
        """Queries and keys along a text [T] of local ids, each token at its position.

        In the first layer the inputs are the model's own, of token and position together.
        """
        if self.call.layer == 0:
            hidden = first_layer_inputs(self.model, torch.as_tensor(self.ids[tokens])[None])[0]
        else:
            rows = torch.as_tensor(tokens, device=self.inputs.device)
            if self.sink_type is not None:
                rows = torch.cat([rows.new_tensor([self.sink_type]), rows[1:]])
            hidden = self.inputs[rows]
            if self.effect is not None:
                at = np.minimum(np.arange(len(tokens)), len(self.effect) - 1)
                hidden = hidden + self.effect[torch.as_tensor(at, device=hidden.device)]
        return ask(self.model, self.call, hidden, np.arange(len(tokens)))


def static_heads(
    model: Any,
    call: LayerCall,
    ids: IntArray,
    inputs: FloatArray,
    effect: FloatArray | None = None,
    sink: FloatArray | None = None,
) -> StaticHeads:
    """Ask a layer's heads with one static input per token.

    Args:
        model: a causal language model.
        call: a call of the layer over a text as long as the longest that will be needed.
        ids: [K] the local vocabulary in the model's own ids.
        inputs: [K, D] static inputs.
        effect: [T, D] of `StaticInputs.position_effect`, for models with learned positions.
        sink: [D] the input of the first position, where it is to be a state of its own.
    """
    rows = inputs if sink is None else np.concatenate([inputs, sink[None]])
    hidden = torch.as_tensor(rows, dtype=call.query.dtype, device=call.query.device)
    placed = None if effect is None else torch.as_tensor(effect, dtype=hidden.dtype, device=hidden.device)
    at_start = ask(model, call, hidden, np.zeros(len(hidden), dtype=np.int64))
    return StaticHeads(model, call.bare(), ids, hidden, placed, replace(at_start, hidden=None))
