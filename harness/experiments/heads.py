"""Experiment `heads`: how far attention over a model's own texts is a context-conditioned Markov chain.

Two passes. Over the training texts, attention is summed per (query, key) pair and per distance, and the inputs of each
layer per token. Over the held-out texts, every surrogate is scored against the rows as they pass. The first position,
the attention sink, is taken out of every row; its share is reported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.config import Config
from harness.experiment_settings import Heads
from harness.experiments.continuations import Continuation, Model, local, read_continuations, real_units
from harness.experiments.fidelity_rows import INFINITE, add_finite, add_ridge, fidelity_means
from harness.measures.statistics import explained_interval
from harness.prompts import Prompt
from harness.rows import Rows
from harness.seeds import derive_seed
from harness.sources import capture, static_inputs
from harness.sources.capture import FloatArray, LayerCall
from harness.sources.static_inputs import StaticHeads, StaticInputs
from harness.surrogates.base import Observations, PairMass, Surrogate, pair_mass
from harness.surrogates.ccmc_fit import CCMCFit
from harness.surrogates.counts import Counts
from harness.surrogates.distance import Distance, distance_mass
from harness.surrogates.from_weights import CCMCWeights, PCCMCWeights, ShuffledWeights
from harness.surrogates.pccmc_fit import PCCMCFit, score_mass
from harness.texts import LocalVocabulary, Text
from harness.units import Unit, Work


def plan(config: Config, settings: Heads, model: Model, prompts: list[Prompt], device: str) -> list[Unit]:
    """One unit per group of layers, after the units that make the texts."""
    texts = [unit for s in config.generation.strategies for unit in real_units(config, model, prompts, s, device)]
    layers = list(range(model.layers)) if settings.layers == "all" else list(settings.layers)
    size = settings.layers_per_unit
    groups = [layers[first : first + size] for first in range(0, len(layers), size)]
    return texts + [
        Unit(
            "harness.experiments.heads:layers",
            f"{model.name}: heads of layers {', '.join(map(str, group))}",
            {
                **model.settings(),
                "layers": group,
                "surrogates": list(settings.surrogates),
                "max_length": settings.max_length,
                "seed": config.seed,
            },
            tuple(texts),
            local(model, device),
        )
        for group in groups
    ]


def head_text(tokens: Any, vocabulary: LocalVocabulary, window: int | None = None) -> Text:
    """A text as heads see it without the sink: every position from 1 on asks, and is asked."""
    return Text(vocabulary.local(tokens), start=1, first=1, window=window)


class Windows:
    """One text as layers of each kind see it: as a whole, or through a sliding window.

    Args:
        tokens: [T] ids in the model's vocabulary.
        vocabulary: of the run's texts.
    """

    def __init__(self, tokens: Any, vocabulary: LocalVocabulary) -> None:
        self.tokens, self.vocabulary = tokens, vocabulary
        self._texts: dict[int | None, Text] = {}

    def seen_by(self, call: LayerCall) -> Text:
        """The text of one layer; layers whose window is not shorter than the text share one."""
        window = call.window if call.window is not None and call.window < len(self.tokens) else None
        if window not in self._texts:
            self._texts[window] = head_text(self.tokens, self.vocabulary, window)
        return self._texts[window]


class LayerSums:
    """What pass 1 keeps of one layer: target mass per text, nothing that grows with the square of a text's length."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.texts: list[Text] = []
        self.wins: list[PairMass] = []
        self.distance: list[FloatArray] = []
        self.score: list[FloatArray] = []

    def add(self, call: LayerCall, text: Text) -> None:
        """Sum the attention of one layer over one text."""
        rows, _ = capture.rows_without_sink(call)  # [H, n, T - 1]
        self.texts.append(text)
        self.wins.append(pair_mass(text, text.per_token(rows), self.vocab_size))
        self.distance.append(distance_mass(text, rows))


def make_surrogate(name: str, heads: StaticHeads, seed: int) -> Surrogate:
    """A surrogate of heads by its name in the ladder."""
    if name == "ccmc-fit":
        return CCMCFit(CCMCWeights(heads), seed)
    if name == "pccmc-fit":
        return PCCMCFit(heads, seed)
    if name == "shuffled-weights":
        return ShuffledWeights(heads, derive_seed(seed, name))
    plain: dict[str, Any] = {"counts": Counts, "distance": Distance}
    if name in plain:
        made: Surrogate = plain[name]()
        return made
    read: dict[str, Any] = {"ccmc-weights": CCMCWeights, "pccmc-weights": PCCMCWeights}
    surrogate: Surrogate = read[name](heads)
    return surrogate


def _share(work: Work, start: float, stop: float, index: int, count: int, what: str) -> None:
    work.progress(start + (stop - start) * index / count, what)


def _templates(model: Any, layers: list[int], length: int) -> dict[int, LayerCall]:
    """A call of each layer over a text as long as the longest: how its attention is called, position by position."""
    found: dict[int, LayerCall] = {}

    def keep(call: LayerCall) -> None:
        found[call.layer] = call

    capture.listen(model, np.zeros(length, dtype=np.int64), layers, keep)
    return found


def static_layers(
    model: Any, static: StaticInputs, wanted: list[int], vocabulary: LocalVocabulary, length: int
) -> dict[int, StaticHeads]:
    """The heads of each layer, asked with the static inputs of training texts.

    Args:
        model: a causal language model.
        static: the inputs of the training texts.
        wanted: which layers.
        vocabulary: of the run's texts.
        length: of the longest text that the heads will be asked about.
    """
    templates = _templates(model, wanted, length)
    learned = static_inputs.has_learned_positions(model, model.config.get_text_config().vocab_size, min(length, 16))
    places = np.unique(np.linspace(1, length - 1, 16 if learned else 1).astype(np.int64))
    embedding = static_inputs.embedding_inputs(model, vocabulary.ids, places)
    heads = {}
    for layer in wanted:
        inputs = static.inputs(layer, embedding)
        effect = static.position_effect(layer, inputs) if learned else None
        heads[layer] = static_inputs.static_heads(model, templates[layer], vocabulary.ids, inputs, effect)
    return heads


def layers(work: Work) -> pd.DataFrame:
    """Do the heads of one group of layers."""
    from harness.sources import loading

    s, wanted = work.settings, list(work.settings["layers"])
    work.progress(0.0, "loading the model")
    model = loading.load_model(Path(work.local["path"]), work.local["device"])
    longest = s["max_length"]
    continuations = [c for folder in work.inputs for c in read_continuations(folder)]
    texts = [(c, c.tokens[:longest]) for c in continuations if len(c.tokens[:longest]) > 2]
    vocabulary = LocalVocabulary(tokens for _, tokens in texts)
    train = [(c, tokens) for c, tokens in texts if c.split == "train"]
    held_out = [(c, tokens) for c, tokens in texts if c.split == "held_out"]

    sums = {layer: LayerSums(len(vocabulary)) for layer in wanted}
    width = model.config.get_text_config().hidden_size
    length = max(len(tokens) for _, tokens in texts)
    static = StaticInputs(len(vocabulary), wanted, width, length)
    for index, (_, tokens) in enumerate(train):
        _share(work, 0.0, 0.3, index, len(train), f"attention over training text {index + 1} of {len(train)}")
        seen_text = Windows(tokens, vocabulary)
        local_tokens = vocabulary.local(tokens)
        static.count_text(local_tokens)

        def take(call: LayerCall, seen_text: Windows = seen_text, local_tokens: Any = local_tokens) -> None:
            sums[call.layer].add(call, seen_text.seen_by(call))
            static.add(call, local_tokens)

        capture.listen(model, tokens, wanted, take)

    rows = Rows(experiment="heads", model=s["model"], revision=s["revision"], split="held_out", seed=s["seed"])
    fitted: dict[int, dict[str, Surrogate]] = {}
    groups = [c.prompt for c, _ in train]
    seen = static.count > 0
    heads = static_layers(model, static, wanted, vocabulary, length)
    if "pccmc-fit" in s["surrogates"]:
        _add_score_mass(work, model, train, heads, sums)
    for index, layer in enumerate(wanted):
        of_layer = sums.pop(layer)
        observations = Observations(
            of_layer.texts, groups, of_layer.wins, len(vocabulary), of_layer.distance, score_mass=of_layer.score
        )
        fitted[layer] = {}
        for name in s["surrogates"]:
            _share(work, 0.5, 0.7, index, len(wanted), f"fitting {name}, layer {layer}")
            seed = derive_seed(s["seed"], "heads", layer)
            fitted[layer][name] = make_surrogate(name, heads[layer], seed).fit(observations)
            for head, ridge in enumerate(getattr(fitted[layer][name], "ridge_", ())):
                add_ridge(rows, float(ridge), layer=layer, head=head, surrogate=name)

    scores = Scores(rows)
    for index, (continuation, tokens) in enumerate(held_out):
        _share(work, 0.7, 1.0, index, len(held_out), f"scoring held-out text {index + 1} of {len(held_out)}")
        seen_text = Windows(tokens, vocabulary)

        def judge(call: LayerCall, seen_text: Windows = seen_text, c: Continuation = continuation) -> None:
            scores.add(call, seen_text.seen_by(call), c, fitted[call.layer], seen)

        capture.listen(model, tokens, wanted, judge)
    scores.explained(derive_seed(s["seed"], "explained"))
    return rows.frame()


def _add_score_mass(
    work: Work, model: Any, train: list[Any], heads: dict[int, StaticHeads], sums: dict[int, LayerSums]
) -> None:
    """A second pass over the training texts: attention times the scores that are now read off the weights."""
    for index, (_, tokens) in enumerate(train):
        _share(work, 0.3, 0.5, index, len(train), f"scores over training text {index + 1} of {len(train)}")

        def take(call: LayerCall, index: int = index) -> None:
            rows, _ = capture.rows_without_sink(call)
            of_layer = sums[call.layer]
            of_layer.score.append(score_mass(heads[call.layer], of_layer.texts[index], rows))

        capture.listen(model, tokens, list(heads), take)


class Scores:
    """Pass 2: surrogates against the attention of held-out texts, per text, head and surrogate."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.kl: dict[tuple[str, int, int, str], list[tuple[float, int]]] = {}

    def add(
        self, call: LayerCall, text: Text, continuation: Continuation, fitted: dict[str, Surrogate], seen: Any
    ) -> None:
        """Score every surrogate of one layer on one text."""
        attention, sink = capture.rows_without_sink(call)
        truth = text.per_token(attention)  # [H, n, U]
        shared: dict[str, Any] = {
            "strategy": continuation.strategy,
            "layer": call.layer,
            "prompt": continuation.prompt,
            "n": len(text),
        }
        for head in range(len(truth)):
            self.rows.add("sink_share", float(sink[head].mean()), head=head, surrogate="model", **shared)
        unseen = 0.0 if call.layer == 0 else float(1.0 - seen[text.tokens[1:]].mean())
        self.rows.add("unseen_share", unseen, surrogate="model", **shared)
        for name, surrogate in fitted.items():
            predicted = np.broadcast_to(surrogate.predict(text), truth.shape)
            found = fidelity_means(truth, predicted)
            for head in range(len(truth)):
                for metric, values in found.items():
                    add_finite(self.rows, metric, float(values[head]), head=head, surrogate=name, **shared)
                entry = (float(found["kl"][head]) * len(text), len(text))
                self.kl.setdefault((continuation.strategy, call.layer, head, name), []).append(entry)

    def explained(self, seed: int) -> None:
        """Per head: 1 - mean KL / mean KL(counts) over held-out queries, with an interval over prompts."""
        for (strategy, layer, head, name), entries in self.kl.items():
            against = self.kl.get((strategy, layer, head, "counts"))
            if name == "counts" or against is None:
                continue
            totals = [total for total, _ in entries]
            columns = {
                "strategy": strategy,
                "layer": layer,
                "head": head,
                "surrogate": name,
                "n": sum(n for _, n in entries),
            }
            if not np.isfinite(totals).all():
                self.rows.add("explained", None, missing=INFINITE, **columns)
                continue
            found = explained_interval(totals, [total for total, _ in against], seed)
            missing = found.missing if found.value is None else None
            self.rows.add("explained", found.value, missing=missing, low=found.low, high=found.high, **columns)
