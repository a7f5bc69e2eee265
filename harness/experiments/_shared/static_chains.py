"""The chains of a language model's heads, from static inputs over training texts: for surrogates and for ablations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from harness.attention import capture
from harness.attention.static_inputs import StaticInputs
from harness.attention.static_layers import static_layers
from harness.data.texts import LocalVocabulary
from harness.surrogates._fitting.head_chains import HeadChain, head_chains

IntArray = np.ndarray[Any, np.dtype[np.int64]]
Progress = Callable[[float, str], None]


class ChainReader:
    """Gathers the inputs of heads over training texts, then reads the static chain of every head.

    Args:
        model: of `loading`.
        layers: which, or all.
        vocabulary: all tokens that the chains have to know; one that no training text holds gets the input that a
            linear map from its embedding predicts.
        length: of the longest training text.
    """

    def __init__(
        self, model: Any, layers: Literal["all"] | Sequence[int], vocabulary: LocalVocabulary, length: int
    ) -> None:
        settings = model.config.get_text_config()
        self.layers = list(range(settings.num_hidden_layers)) if layers == "all" else sorted(layers)
        self._model, self._vocabulary, self._length = model, vocabulary, length
        self._static = StaticInputs(len(vocabulary), self.layers, settings.hidden_size, length)

    def text(self, tokens: IntArray) -> Callable[[capture.LayerCall], None]:
        """What takes the calls of `layers` over the next training text, token ids [T] with T >= 2."""
        local = self._vocabulary.local(tokens)
        self._static.count_text(local)
        return lambda call: self._static.add(call, local)

    def chains(self) -> list[HeadChain]:
        """The static chain of every head of the layers, in their order."""
        return head_chains(static_layers(self._model, self._static, self.layers, self._vocabulary, self._length))


def read_chains(
    model: Any, texts: Sequence[IntArray], vocabulary: LocalVocabulary, progress: Progress = lambda share, what: None
) -> list[HeadChain]:
    """The static chain of every head of a model.

    Args:
        model: of `loading`.
        texts: token ids of the training texts.
        vocabulary: all tokens that the chains have to know.
        progress: called with a description of each step.
    """
    reader = ChainReader(model, "all", vocabulary, max(len(tokens) for tokens in texts))
    for index, tokens in enumerate(texts):
        progress(index / len(texts), f"inputs of heads, training text {index + 1} of {len(texts)}")
        capture.listen(model, tokens, reader.layers, reader.text(tokens))
    return reader.chains()
