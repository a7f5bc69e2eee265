"""The heads of the layers of a model, with the static inputs of training texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from harness.attention import capture, static_inputs
from harness.attention.capture import LayerCall
from harness.attention.static_inputs import StaticHeads, StaticInputs
from harness.data.texts import LocalVocabulary


def _templates(model: Any, layers: list[int], length: int) -> dict[int, LayerCall]:
    """A call of each layer over a text as long as the longest: how its attention is called, position by position."""
    found: dict[int, LayerCall] = {}

    def keep(call: LayerCall) -> None:
        found[call.layer] = call.bare()

    capture.listen(model, np.zeros(length, dtype=np.int64), layers, keep)
    return found


def static_layers(
    model: Any, static: StaticInputs, wanted: list[int], vocabulary: LocalVocabulary, length: int
) -> dict[int, StaticHeads]:
    """The heads of each layer, with the static inputs of training texts.

    Args:
        model: a causal language model.
        static: the inputs of the training texts.
        wanted: which layers.
        vocabulary: of the run's texts.
        length: of the longest text that the heads are used on.
    """
    templates = _templates(model, wanted, length)
    learned = static_inputs.has_learned_positions(model, model.config.get_text_config().vocab_size, min(length, 16))
    places = np.unique(np.linspace(1, length - 1, 16 if learned else 1).astype(np.int64))
    embedding = static_inputs.embedding_inputs(model, vocabulary.ids, places)
    heads = {}
    for layer in wanted:
        inputs, fall_back = static.inputs_and_fall_back(layer, embedding)
        effect = static.position_effect(layer, inputs) if learned else None
        sink = static.sink(layer)
        made = static_inputs.static_heads(model, templates[layer], vocabulary.ids, inputs, effect, sink)
        heads[layer] = replace(made, places=places, fall_back=fall_back)
    return heads
