"""Surrogates of heads fitted to the training texts of a run: the first of two passes.

Over the training texts, attention is summed per (query, key) pair and per distance, and the inputs of each layer per
token; every surrogate of the layers is fitted to these sums. The first position is taken out of every row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import numpy as np

from harness.attention import static_inputs
from harness.attention.capture import IntArray, LayerCall
from harness.attention.packing import listen_windows, window_width
from harness.attention.static_inputs import StaticInputs
from harness.attention.static_layers import static_layers
from harness.attention.windows import Windows
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.data.texts import LocalVocabulary
from harness.experiments._shared.continuations import Continuation, read_continuations
from harness.experiments._shared.fidelity_rows import add_facts
from harness.experiments._shared.head_sums import LayerSums, PriorSums
from harness.runs.units import Work
from harness.surrogates.base import HeadSurrogate, Ingredients
from harness.surrogates.make import make, priors_of
from harness.surrogates.observations import HeadObservations

Receive = Callable[[LayerCall, int], None]
"""Gets the call of a layer, and which text it is of."""


def share(work: Work, start: float, stop: float, index: int, count: int, what: str) -> None:
    work.progress(start + (stop - start) * index / count, what)


@dataclass
class FittedHeads:
    """The surrogates of some layers, fitted to the training texts of a run, and what they are judged on.

    Attributes:
        model: a causal language model.
        vocabulary: of the run's texts.
        surrogates: by layer and name.
        held_out: held-out texts, in the model's ids.
        counts: [K] how often each token occurs in the training texts, the first position left out.
    """

    model: Any
    vocabulary: LocalVocabulary
    surrogates: dict[int, dict[str, HeadSurrogate]]
    held_out: list[tuple[Continuation, IntArray]]
    counts: IntArray


def named_receiver(receive: Receive, model: str, texts: Sequence[Continuation]) -> Receive:
    """A receiver of layers whose errors name the model and the text: attention that is no number, above all."""

    def take(call: LayerCall, number: int) -> None:
        try:
            receive(call, number)
        except ValueError as error:
            raise ValueError(f"model {model!r}, text of prompt {texts[number].prompt!r}: {error}") from error

    return take


def fit_heads(work: Work, rows: Rows) -> FittedHeads:
    """Pass 1: fit every surrogate of the unit's layers to the training texts.

    Args:
        work: a unit of heads, or a part of one: some of its layers, some of its surrogates.
        rows: receive the results on training texts, such as the ridges that were chosen.
    """
    from harness.models import loading

    work.progress(0.0, "loading the model")
    model = loading.model_of(work.local)
    longest = work.settings["max_length"]
    continuations = [c for folder in work.inputs for c in read_continuations(folder)]
    texts = [(c, c.tokens[:longest]) for c in continuations if len(c.tokens[:longest]) > 2]
    vocabulary = LocalVocabulary(tokens for _, tokens in texts)
    train = [(c, tokens) for c, tokens in texts if c.split == "train"]
    held_out = [(c, tokens) for c, tokens in texts if c.split == "held_out"]
    with tempfile.TemporaryFile(dir=work.folder) as file:
        fitted, counts = fit_layers(work, model, texts, train, vocabulary, file, rows)
    return FittedHeads(model, vocabulary, fitted, held_out, counts)


def training_pass(
    model: Any,
    texts: Sequence[IntArray],
    wanted: Sequence[int],
    vocabulary: LocalVocabulary,
    file: IO[bytes] | None = None,
    progress: Callable[[int], None] = lambda index: None,
    width: int | None = None,
    named: Callable[[Receive], Receive] = lambda receive: receive,
) -> tuple[dict[int, LayerSums], StaticInputs]:
    """Pass 1: sums of attention, and mean inputs.

    Args:
        model: a causal language model.
        texts: [T] token ids each.
        wanted: which layers.
        vocabulary: of all texts of the run.
        file: where the sums per pair go, or None to keep them in memory.
        progress: called with the number of each text before it is read.
        width: tokens that go through the model at once, of as many texts as fit; None for one text at a time.
        named: what is put around the receiver of layers.
    """
    settings = model.config.get_text_config()
    length = max(len(tokens) for tokens in texts)
    learned = static_inputs.has_learned_positions(model, settings.vocab_size, min(length, 16))
    sums = {layer: LayerSums(len(vocabulary), file) for layer in wanted}
    static = StaticInputs(len(vocabulary), wanted, settings.hidden_size, length if learned else None)
    views = [Windows(tokens, vocabulary) for tokens in texts]
    local_tokens = [vocabulary.local(tokens) for tokens in texts]
    for tokens in local_tokens:
        static.count_text(tokens)

    def take(call: LayerCall, number: int) -> None:
        if call.layer == wanted[0]:
            progress(number)
        sums[call.layer].add(call, views[number].seen_by(call))
        static.add(call, local_tokens[number])

    listen_windows(model, texts, wanted, named(take), width)
    return sums, static


def fit_layers(
    work: Work,
    model: Any,
    texts: list[tuple[Continuation, IntArray]],
    train: list[tuple[Continuation, IntArray]],
    vocabulary: LocalVocabulary,
    file: IO[bytes],
    rows: Rows,
    seen: Callable[[int, HeadObservations], None] | None = None,
) -> tuple[dict[int, dict[str, HeadSurrogate]], IntArray]:
    """Fit the surrogates of every layer; also how often each token [K] has added to its static input.

    Args:
        work: a unit with layers, surrogates, max_length and seed among its settings.
        model: a causal language model.
        texts: all that the surrogates will be used on: the longest decides how far positions reach.
        train: those that are learned from.
        vocabulary: of the texts.
        file: where the sums per pair go.
        rows: receive what fits report.
        seen: called with each layer and what its surrogates are fitted to.
    """
    s, wanted, count = work.settings, list(work.settings["layers"]), len(train)

    def step(start: float, stop: float, what: str) -> Callable[[int], None]:
        return lambda index: share(work, start, stop, index, count, f"{what} training text {index + 1} of {count}")

    of_train, width = [tokens for _, tokens in train], window_width(model, s["max_length"])
    named = partial(named_receiver, model=s["model"], texts=[c for c, _ in train])
    heard = step(0.0, 0.3, "attention over")
    sums, static = training_pass(model, of_train, wanted, vocabulary, file, heard, width, named)
    heads = static_layers(model, static, wanted, vocabulary, max(len(tokens) for _, tokens in texts))
    given = {layer: Ingredients(derive_seed(s["seed"], "heads", layer), heads[layer]) for layer in wanted}
    priors = priors_of(s["surrogates"])
    prior = {layer: PriorSums([make(name, "heads", given[layer]) for name in priors]) for layer in wanted}
    if priors:
        heard = step(0.3, 0.5, "scores over")

        def take(call: LayerCall, number: int) -> None:
            if call.layer == wanted[0]:
                heard(number)
            prior[call.layer].add(call, sums[call.layer].views[number])

        listen_windows(model, of_train, wanted, named(take), width)
    fitted: dict[int, dict[str, HeadSurrogate]] = {}
    for index, layer in enumerate(wanted):
        of_layer, of_prior = sums.pop(layer), prior.pop(layer)
        observations = _observations(of_layer, of_prior, [c.prompt for c, _ in train], len(vocabulary))
        if seen is not None:
            seen(layer, observations)
        of_layer.add_rows(rows, layer)
        fitted[layer] = {}
        for name in s["surrogates"]:
            share(work, 0.5, 0.7, index, len(wanted), f"fitting {name}, layer {layer}")
            made = make(name, "heads", given[layer])
            fitted[layer][name] = made.fit(observations)
            add_facts(rows, made.extra_rows(), layer=layer, surrogate=name)
    return fitted, static.count.astype(np.int64)


def _observations(sums: LayerSums, prior: PriorSums, prompts: Sequence[str], size: int) -> HeadObservations:
    return HeadObservations(
        [view.text for view in sums.views],
        prompts,
        sums.wins,
        size,
        sums.distance,
        score_mass=prior.score,
        place_mass=prior.place,
        sink_odds=sums.sink_odds,
        prior_sink_odds=prior.sink_odds,
    )
