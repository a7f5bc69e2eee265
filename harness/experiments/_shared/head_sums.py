"""Pass 1 over training texts: sums of attention per layer, all that surrogates of heads are fitted to.

The mass of a text on its pairs goes to disk when its layer is done; what stays grows with the length of the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import torch

from harness.attention import block_rows
from harness.attention.blocks import Asked, View
from harness.attention.capture import FloatArray, IntArray, LayerCall
from harness.core.rows import Rows
from harness.measures.block_fidelity import judge
from harness.surrogates._fitting.buckets import bucket_sums
from harness.surrogates.base import HeadSurrogate
from harness.surrogates.observations import PairMass, Spilled, pair_codes


@dataclass
class TextSums:
    """What pass 1 keeps of one layer over one text.

    Attributes:
        pairs: [H, p] attention per pair of `Text.pairs`.
        distance: [H, T] attention per distance.
        entropy: [H] entropies of the rows over positions, summed; `token_entropy` of the same over tokens.
        log_counts: [H] attention times the logarithm of its token's count, summed.
        sink_odds: [H, n] log odds of the first position, per query.
    """

    pairs: np.ndarray[Any, np.dtype[np.float32]]
    distance: FloatArray
    entropy: FloatArray
    token_entropy: FloatArray
    log_counts: FloatArray
    sink_odds: np.ndarray[Any, np.dtype[np.float32]]


def _array(values: torch.Tensor) -> Any:
    return values.cpu().numpy()


def sum_text(call: LayerCall, view: View) -> TextSums:
    """Sum the attention of one layer over one text, block by block.

    Raises:
        ValueError: a score that is not finite; names layer, head and position.
    """
    asked = Asked.of(call)
    heads, types = call.query.shape[0], len(view.types)
    device = asked.key.device
    pairs = torch.zeros(heads, types, types, device=device)  # [H, query, key]
    distance = torch.zeros(heads, view.length, dtype=torch.float64, device=device)
    facts = torch.zeros(heads, 5, dtype=torch.float64, device=device)
    odds = torch.zeros(heads, view.length - 1, device=device)
    for block in view.blocks(heads):
        of_block, odds_there = block_rows.add_rows(asked, block, pairs, distance)
        facts[block.heads] += of_block.sum(2)
        odds[block.heads, block.start - 1 : block.stop - 1] = odds_there
    _, entropy, token_entropy, log_counts, _ = (_array(of_rows) for of_rows in facts.unbind(1))
    mass = _array(view.pick(pairs))
    return TextSums(mass, _array(distance), entropy, token_entropy, log_counts, _array(odds))


@dataclass
class LayerSums:
    """What pass 1 keeps of one layer over all training texts; the pairs, which are most of it, go to disk.

    Attributes:
        vocab_size: K, size of the local vocabulary.
        file: where the sums per pair go, or None to keep them.
        views: the texts, as the layer sees them.
        wins, distance: per text, what `Observations` takes.
        entropy, token_entropy, log_counts: per text [H].
        sink_odds: per text [H, n].
    """

    vocab_size: int
    file: IO[bytes] | None = None
    views: list[View] = field(default_factory=list)
    wins: list[PairMass] = field(default_factory=list)
    distance: list[FloatArray] = field(default_factory=list)
    entropy: list[FloatArray] = field(default_factory=list)
    token_entropy: list[FloatArray] = field(default_factory=list)
    log_counts: list[FloatArray] = field(default_factory=list)
    sink_odds: list[np.ndarray[Any, Any]] = field(default_factory=list)

    def add(self, call: LayerCall, view: View) -> None:
        """Sum the attention of one layer over one text."""
        sums = sum_text(call, view)
        kept = sums.pairs if self.file is None else Spilled(self.file, sums.pairs)
        self.views.append(view)
        self.wins.append(PairMass(self._codes(view), kept))
        self.distance.append(bucket_sums(sums.distance))
        self.entropy.append(sums.entropy)
        self.token_entropy.append(sums.token_entropy)
        self.log_counts.append(sums.log_counts)
        self.sink_odds.append(sums.sink_odds)

    def _codes(self, view: View) -> IntArray:
        """[p] the pairs of a text; one array for all layers that share its view."""
        name = f"pairs of {self.vocab_size} tokens"
        return view.of_all_layers.get(view.text, name, lambda: pair_codes(view.text, self.vocab_size))

    def add_rows(self, rows: Rows, layer: int) -> None:
        """Add how spread attention over the training texts is, per head."""
        queries = sum(len(view.text) for view in self.views)
        for metric, sums in (("row_entropy", self.entropy), ("token_entropy", self.token_entropy)):
            for head, total in enumerate(np.sum(sums, axis=0).tolist()):
                where: dict[str, Any] = {"layer": layer, "head": head, "surrogate": "model", "split": "train"}
                rows.add(metric, total / queries, n=queries, **where)


class PriorSums:
    """What fits need of a layer that are shrunk to other surrogates, once its static inputs are known.

    Args:
        surrogates: those that fits are shrunk to; none of them is fitted itself.

    Attributes:
        score: per text [H], attention times the scores of positions read off the weights.
        place: per text [H, D], attention per bucket of the key's position.
        sink_odds: per surrogate read off the weights, per text [H, n] log odds of the first position.
    """

    def __init__(self, surrogates: Sequence[HeadSurrogate]) -> None:
        self.surrogates = tuple(surrogates)
        self.score: list[FloatArray] = []
        self.place: list[FloatArray] = []
        self.sink_odds: dict[str, list[FloatArray]] = {surrogate.name: [] for surrogate in self.surrogates}

    def add(self, call: LayerCall, view: View) -> None:
        """Sum over one text."""
        asked, heads = Asked.of(call), call.query.shape[0]
        score = torch.zeros(heads, dtype=torch.float64, device=asked.key.device)
        place = score.new_zeros(heads, view.length)
        odds: dict[str, torch.Tensor] = {}
        view = view.apart(asked)
        ready = [(surrogate.name, surrogate.along(view)) for surrogate in self.surrogates]
        for block in view.blocks(heads):
            rows = block_rows.rows(asked, block)
            place[block.heads, block.low : block.stop] += rows.weight.sum(2)
            for name, weights in ready:
                given = weights(block)
                log_total, top, _, cross_position, _, _ = judge(given, rows, block).unbind(1)
                if not given.by_token:
                    score[block.heads] += (cross_position + top).double().sum(1)
                if given.sink is not None:
                    if name not in odds:
                        odds[name] = top.new_zeros(heads, view.length - 1)
                    found = block.where_sink_is_seen(given.sink - log_total - top)
                    odds[name][block.heads, block.start - 1 : block.stop - 1] = found
        self.score.append(_array(score))
        self.place.append(bucket_sums(_array(place)))
        for name, of_text in odds.items():
            self.sink_odds[name].append(_array(of_text))
