"""Surrogates of the heads of a model that is at hand: fitted to texts, held against attention, put in its place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.attention import Heads
from harness.attention.capture import FloatArray, IntArray, LayerCall, attention_modules, listen
from harness.attention.loop_running import Replacement
from harness.attention.loop_terms import mean_log_odds
from harness.attention.replacing import check_reach
from harness.attention.windows import Windows
from harness.core.errors import UsageError, nearest
from harness.core.rows import Rows
from harness.data.texts import LocalVocabulary
from harness.experiments._shared.continuations import Continuation
from harness.experiments._shared.head_fits import fit_layers
from harness.experiments._shared.head_scores import score_text
from harness.runs.units import Work
from harness.surrogates.base import HeadSurrogate
from harness.surrogates.observations import HeadObservations

FEWEST = 3  # tokens of a text: two queries that see more than the first position


@dataclass(frozen=True)
class HeadChains:
    """A surrogate of every head of some layers of a model.

    Attributes:
        model: whose heads they are.
        name: of the surrogate.
        fitted: by layer.
        vocabulary: [K] token ids that have a place, sorted: those of the texts that were given to `fit_heads`.
        levels: by layer, [H] mean log odds of the first position on them.
    """

    model: Any
    name: str
    fitted: Mapping[int, HeadSurrogate]
    vocabulary: IntArray
    levels: Mapping[int, FloatArray]

    @property
    def heads(self) -> int:
        """Of a layer."""
        return int(self.model.config.get_text_config().num_attention_heads)

    def replacements(self, heads: Heads) -> list[Replacement]:
        """What takes the place of some heads while the model runs, for `harness.attention.replace`.

        Args:
            heads: layer -> heads, None for all of it; or (layer, head) pairs; or None for all that were fitted.

        Raises:
            UsageError: heads that there are none of, or that were not fitted.
        """
        wanted: dict[int, list[int] | None] = {}
        if heads is None:
            wanted = dict.fromkeys(self.fitted)
        elif isinstance(heads, Mapping):
            wanted = {
                int(layer): None if some is None else [int(head) for head in some] for layer, some in heads.items()
            }
        else:
            for layer, head in heads:
                wanted.setdefault(int(layer), []).append(int(head))  # type: ignore[union-attr]
        for layer, some in wanted.items():
            if layer not in self.fitted:
                known = ", ".join(map(str, self.fitted))
                raise UsageError(f"layer {layer}: its heads were not fitted; fitted are those of layers {known}")
            for head in some or ():
                if not 0 <= head < self.heads:
                    raise UsageError(f"head {layer}.{head}: a layer has heads 0 to {self.heads - 1}")
        return [
            Replacement(layer, self.fitted[layer].loop_terms(), None if some is None else sorted(set(some)))
            for layer, some in sorted(wanted.items())
        ]

    def measures(self, texts: Iterable[Any]) -> pd.DataFrame:
        """How close the surrogate is to the attention of every head along texts that it was not fitted to.

        Args:
            texts: token ids [T] each, of tokens that have a place: give them to `fit_heads` as `held_out`.

        Returns:
            One row per text, layer and head: text, layer, head, sink_share, and means over queries of the measures of
            heads, such as `kl` (nats), `total_variation` and `top_token`.

        Raises:
            UsageError: a text with a token that has no place, or that is too short.
        """
        vocabulary, rows = LocalVocabulary([self.vocabulary]), []
        for number, tokens in enumerate(_checked(texts)):
            if len(outside := np.setdiff1d(tokens, self.vocabulary)):
                raise UsageError(
                    f"text {number}: token {outside[0]} has no place; give the text to fit_heads as held_out"
                )
            view = Windows(tokens, vocabulary)

            def take(call: LayerCall, number: int = number, view: Windows = view) -> None:
                sink, found = score_text(call, view.seen_by(call), {self.name: self.fitted[call.layer]})
                for head, share in enumerate(sink.tolist()):
                    of_head = {metric: float(values[head]) for metric, values in found[self.name].items()}
                    rows.append({"text": number, "layer": call.layer, "head": head, "sink_share": share, **of_head})

            listen(self.model, tokens, list(self.fitted), take)
        return pd.DataFrame(rows)


def fit_heads(
    model: Any,
    texts: Iterable[Any],
    surrogate: str = "pccmc-weights",
    layers: Sequence[int] | None = None,
    *,
    held_out: Iterable[Any] = (),
    seed: int = 0,
    progress: Callable[[float, str], None] = lambda share, what: None,
) -> HeadChains:
    """Fit a surrogate to heads of a model that is at hand.

    Args:
        model: a causal language model of transformers, of a family that the capture supports, in float32.
        texts: token ids [T] each, three or more; what the surrogate learns from.
        surrogate: of heads, as `ccmc list surrogates` names it.
        layers: which; default: all.
        held_out: other texts, which nothing is learned from: their tokens get a place, and `measures` can read them.
        seed: of surrogates that draw at random.
        progress: called with the share done and what is being done.

    Returns:
        Surrogates of all heads of these layers.

    Raises:
        UsageError: an unknown surrogate or layer, a text that is too short, or a model that cannot be captured.

    Source:
        Ildiz et al., "From Self-Attention to Markov Models", 2024: a head as a context-conditioned chain.
    """
    from harness.core import registry

    known = registry.surrogates("heads")
    if surrogate not in known:
        raise UsageError(f"surrogate {surrogate!r}{nearest(surrogate, known)}")
    check_reach(model)
    there = list(attention_modules(model))
    wanted = there if layers is None else list(layers)
    for layer in wanted:
        if layer not in there:
            raise UsageError(f"layer {layer}: the model has layers {there[0]} to {there[-1]}")
    ids, others = _checked(texts), [text for text in map(np.asarray, held_out) if text.size]
    named = [
        (Continuation(f"text {n}", "train", "given", 0, tokens, tokens[:0]), tokens) for n, tokens in enumerate(ids)
    ]
    longest = max(len(tokens) for tokens in [*ids, *others])
    every = [*named, *((Continuation("held out", "held_out", "given", 0, text, text[:0]), text) for text in others)]
    settings = {"layers": wanted, "surrogates": [surrogate], "max_length": longest, "seed": seed, "model": "the model"}
    vocabulary, levels = LocalVocabulary([*ids, *others]), {}

    def seen(layer: int, observations: HeadObservations) -> None:
        levels[layer] = mean_log_odds(observations.sink_odds)

    rows = Rows(experiment="heads", model="the model", split="train")
    training = model.training
    model.eval()
    try:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile(dir=folder) as file:
            work = Work(settings, {}, [], Path(folder), progress)
            fitted, _ = fit_layers(work, model, every, named, vocabulary, file, rows, seen)
    finally:
        model.train(training)
    of_layers = {layer: of_layer[surrogate] for layer, of_layer in fitted.items()}
    return HeadChains(model, surrogate, of_layers, vocabulary.ids, levels)


def _checked(texts: Iterable[Any]) -> list[IntArray]:
    """Token ids as arrays.

    Raises:
        UsageError: no text, or one that is no list of ids or too short; names its number.
    """
    found = []
    for number, text in enumerate(texts):
        try:
            tokens = np.asarray(text)
        except Exception:
            tokens = np.empty(0)
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or len(tokens) < FEWEST:
            raise UsageError(f"text {number}: token ids [T], {FEWEST} or more, are needed")
        found.append(tokens.astype(np.int64))
    if not found:
        raise UsageError("texts: at least one is needed")
    return found
