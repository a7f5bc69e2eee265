"""The chains of a language model's heads, from static inputs over training texts: for surrogates and for ablations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from harness.experiments.heads import static_layers
from harness.sources import capture
from harness.sources.static_inputs import StaticInputs
from harness.surrogates.head_chains import HeadChain, head_chains
from harness.texts import LocalVocabulary

IntArray = np.ndarray[Any, np.dtype[np.int64]]
Progress = Callable[[float, str], None]


def read_chains(
    model: Any,
    layers: Literal["all"] | Sequence[int],
    texts: Sequence[IntArray],
    vocabulary: LocalVocabulary,
    progress: Progress = lambda share, what: None,
) -> list[HeadChain]:
    """The static chain of every head of some layers.

    Args:
        model: of `loading`.
        layers: which, or all.
        texts: token ids of the training texts, each of at least two tokens.
        vocabulary: all tokens that the chains have to know; one that no training text holds gets the input that a
            linear map from its embedding predicts.
        progress: told what is being done.
    """
    settings = model.config.get_text_config()
    wanted = list(range(settings.num_hidden_layers)) if layers == "all" else sorted(layers)
    length = max(len(tokens) for tokens in texts)
    static = StaticInputs(len(vocabulary), wanted, settings.hidden_size, length)
    for index, tokens in enumerate(texts):
        progress(index / len(texts), f"inputs of heads, training text {index + 1} of {len(texts)}")
        local = vocabulary.local(tokens)
        static.count_text(local)

        def take(call: capture.LayerCall, local: IntArray = local) -> None:
            static.add(call, local)

        capture.listen(model, tokens, wanted, take)
    return head_chains(static_layers(model, static, wanted, vocabulary, length))
