"""Surrogates of the heads of small models, fitted to random texts, for tests of heads replaced in a running model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import families
import numpy as np
import small_models
import torch
from float32 import in_float64

from harness.attention.packing import listen_windows
from harness.attention.static_inputs import StaticHeads
from harness.attention.static_layers import static_layers
from harness.data.texts import LocalVocabulary
from harness.experiments._shared.head_fits import training_pass
from harness.experiments._shared.head_sums import PriorSums
from harness.surrogates.base import HeadSurrogate, Ingredients
from harness.surrogates.make import make, priors_of
from harness.surrogates.observations import HeadObservations

SCALES = {"gemma2": 0.8, "olmo2": 0.6, "qwen3": 0.6, "stablelm": 0.6, "gemma3": 0.6, "gpt_neo": 0.3}
LONGEST = 40


@dataclass(frozen=True)
class Trained:
    """A model, the vocabulary of its training texts, and by layer its static heads and what it did on those texts."""

    model: Any
    vocabulary: LocalVocabulary
    heads: dict[int, StaticHeads]
    observations: dict[int, HeadObservations]
    texts: list[Any]

    def fitted(self, name: str, layer: int) -> HeadSurrogate:
        made: HeadSurrogate = make(name, "heads", Ingredients(0, self.heads[layer]))
        return made.fit(self.observations[layer])


def train(name: str, layers: Sequence[int], fits: Sequence[str] = (), more: Sequence[int] = ()) -> Trained:
    """A model of a family in float64 and its static inputs; what fits need is collected where there are any.

    Training texts do not hold tokens 2 to 6; the vocabulary has those of `more` all the same. With fits it must not be
    called `in_float64()`: the kernels that collect take float32.
    """
    model = families.build(families.FAMILIES[name], SCALES.get(name, 0.5))
    model = model if fits else model.double()
    texts = [np.random.default_rng(seed).integers(7, small_models.VOCAB_SIZE, 30) for seed in range(4)]
    vocabulary, wanted = LocalVocabulary([*texts, np.array(more, dtype=np.int64)]), list(layers)
    sums, static = training_pass(model, texts, wanted, vocabulary)
    prior = {layer: PriorSums([]) for layer in wanted}
    if fits:
        heads = static_layers(model, static, wanted, vocabulary, LONGEST)
        for layer in wanted:
            prior[layer] = PriorSums([make(p, "heads", Ingredients(0, heads[layer])) for p in priors_of(fits)])
        listen_windows(
            model, texts, wanted, lambda call, n: prior[call.layer].add(call, sums[call.layer].views[n]), None
        )
    with in_float64():
        heads = static_layers(model.double(), static, wanted, vocabulary, LONGEST)
    observations = {
        layer: HeadObservations(
            [view.text for view in sums[layer].views],
            [f"p{number}" for number in range(len(texts))],
            sums[layer].wins,
            len(vocabulary),
            sums[layer].distance,
            score_mass=prior[layer].score,
            place_mass=prior[layer].place,
            sink_odds=sums[layer].sink_odds,
            prior_sink_odds=prior[layer].sink_odds,
        )
        for layer in wanted
    }
    return Trained(model, vocabulary, heads, observations, texts)


def step_by_step(model: Any, ids: Any, prompt: int) -> torch.Tensor:
    """Logits [T, K] of a text: a prompt in one pass, then token by token with a cache."""
    tokens = torch.as_tensor(ids)[None]
    with torch.inference_mode():
        out = model(tokens[:, :prompt], use_cache=True)
        parts = [out.logits[0]]
        for t in range(prompt, len(ids)):
            out = model(
                tokens[:, t : t + 1],
                past_key_values=out.past_key_values,
                attention_mask=torch.ones(1, t + 1, dtype=torch.long),
                position_ids=torch.tensor([[t]]),
            )
            parts.append(out.logits[0])
    return torch.cat(parts)
