"""What replacement needs of some layers: static inputs and fits of surrogates, orders and kinds of heads.

Everything comes from training texts alone, the vocabulary too: tokens that only held-out texts hold get the fall-back
of static inputs. Some training texts are read by no fit: how far surrogates are from rows is measured on these, so that
what has many parameters is not favoured. A layer leaves `layer-NN.npz` (static inputs, log odds of the first position,
mean rows and outputs) and `NAME-NN.npz` (terms of a surrogate); `heads.json` says of each head how far each surrogate
is from its rows, and of which kind it is; a sample of attention and of what surrogates predict is kept to be looked at.
"""

from __future__ import annotations

import json
import tempfile
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.attention.capture import IntArray, LayerCall
from harness.attention.loop_store import static_arrays, term_arrays, write_arrays
from harness.attention.loop_terms import mean_log_odds
from harness.attention.packing import listen_windows, window_width
from harness.attention.replacing import mean_outputs
from harness.attention.windows import Windows
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.data.texts import LocalVocabulary
from harness.experiments._shared.attention_samples import AttentionSamples
from harness.experiments._shared.continuations import Continuation, read_continuations
from harness.experiments._shared.head_fits import fit_layers, named_receiver
from harness.experiments._shared.head_scores import compare_text
from harness.experiments._shared.loop_rules import LEADER
from harness.experiments._shared.mean_rows import MeanRows
from harness.measures.head_kinds import PATTERNS, kind_of
from harness.measures.head_patterns import PatternSums
from harness.runs.units import Work
from harness.surrogates.base import HeadSurrogate
from harness.surrogates.observations import HeadObservations

MEAN_TEXTS = 16
"""Training texts over which the outputs of heads are averaged."""
OTHER = "other"


def read_texts(work: Work, split: str) -> list[tuple[Continuation, IntArray]]:
    """The texts of one side of the split, cut to the longest length, in the order of the units."""
    longest = work.settings["max_length"]
    found = [
        c for folder in work.inputs if (folder / "trajectories.parquet").exists() for c in read_continuations(folder)
    ]
    return [(c, c.tokens[:longest]) for c in found if c.split == split and len(c.tokens[:longest]) > 2]


def divided(
    texts: list[tuple[Continuation, IntArray]], share: float, seed: int
) -> tuple[list[tuple[Continuation, IntArray]], list[tuple[Continuation, IntArray]]]:
    """Training texts in two: those that fits read, and those that choices are made on; by group of prompts.

    One group alone is on both sides.

    Args:
        texts: of training prompts.
        share: of the groups, to choose on; at least one, and at least one is left.
        seed: of the run.
    """
    groups = sorted({c.group for c, _ in texts})
    if len(groups) < 2:
        return texts, texts
    rng = np.random.default_rng(derive_seed(seed, "texts to choose on"))
    count = min(max(1, round(share * len(groups))), len(groups) - 1)
    chosen = {groups[int(place)] for place in rng.permutation(len(groups))[:count]}
    return [one for one in texts if one[0].group not in chosen], [one for one in texts if one[0].group in chosen]


def choosing_texts(work: Work) -> list[tuple[Continuation, IntArray]]:
    """The training texts that no fit reads."""
    return divided(read_texts(work, "train"), work.settings["choosing"], work.settings["seed"])[1]


def fit(work: Work) -> pd.DataFrame:
    """Do some layers."""
    from harness.models import loading

    s = work.settings
    work.progress(0.0, "loading the model")
    model = loading.model_of(work.local)
    rows = Rows(experiment=s["experiment"], model=s["model"], revision=s["revision"], split="train", seed=s["seed"])
    train = read_texts(work, "train")
    fitting, choosing = divided(train, s["choosing"], s["seed"])
    vocabulary = LocalVocabulary(tokens for _, tokens in train)
    levels: dict[int, Any] = {}

    def seen(layer: int, observations: HeadObservations) -> None:
        levels[layer] = mean_log_odds(observations.sink_odds)

    with tempfile.TemporaryFile(dir=work.folder) as file:
        fitted, _ = fit_layers(work, model, train, fitting, vocabulary, file, rows, seen)
    measured = _Measured(vocabulary, fitted, levels)
    measured.read(work, model, fitting, choose=False)
    measured.read(work, model, choosing, choose=True)
    measured.samples.write(work.folder, s["model"])
    measured.add_rows(rows)
    outputs = mean_outputs(model, [tokens for _, tokens in fitting[:MEAN_TEXTS]], s["layers"])
    for layer in s["layers"]:
        terms = {name: surrogate.loop_terms() for name, surrogate in fitted[layer].items()}
        static = next((one.static for one in terms.values() if one.static is not None), None)
        kept = {} if static is None else static_arrays(static)
        kept |= {"levels": levels[layer], "output": outputs[layer].values, **measured.mean_rows[layer].arrays()}
        write_arrays(work.folder / f"layer-{layer:02}.npz", kept)
        for name, one in terms.items():
            write_arrays(work.folder / f"{name}-{layer:02}.npz", term_arrays(one, s["longest"]))
    write_arrays(work.folder / "vocabulary.npz", {"ids": vocabulary.ids})
    (work.folder / "heads.json").write_text(json.dumps(measured.heads(), indent=1) + "\n", encoding="utf-8")
    return rows.frame()


class _Measured:
    """What a second reading of training texts says about heads, and a first of others about their surrogates."""

    def __init__(
        self,
        vocabulary: LocalVocabulary,
        fitted: dict[int, dict[str, HeadSurrogate]],
        levels: dict[int, Any],
    ) -> None:
        self.vocabulary, self.fitted, self.levels = vocabulary, fitted, levels
        self.mean_rows: dict[int, MeanRows] = {}
        self.queries = self.chosen_queries = 0
        self._kl: dict[int, dict[str, Any]] = {layer: {} for layer in fitted}
        self._sink: dict[int, Any] = {}
        self._patterns: dict[tuple[int, str], list[Any]] = {}
        self.samples = AttentionSamples()

    def read(self, work: Work, model: Any, texts: list[tuple[Continuation, IntArray]], choose: bool) -> None:
        """Read texts: for patterns and mean rows, or to choose by how far surrogates are from the rows."""
        s = work.settings
        layers: list[int] = list(s["layers"])
        views: dict[int, Windows] = {}  # of the texts that are going through the model
        ids = [tokens for _, tokens in texts]
        queries, start = sum(len(tokens) - 1 for tokens in ids), 0.9 if choose else 0.7
        if choose:
            self.chosen_queries = queries
        else:
            self.queries = queries

        def take(call: LayerCall, number: int) -> None:
            if call.layer == layers[0]:
                part = (1.0 - start if choose else 0.2) * number / len(ids)
                work.progress(start + part, f"measuring heads, training text {number + 1} of {len(ids)}")
                views[number] = Windows(ids[number], self.vocabulary)
            if choose:
                view = views[number].seen_by(call)
                self._compare(call, view, s["first_position"])
                self.samples.add(call, ids[number], view.text, texts[number][0], self.fitted[call.layer])
            else:
                self._watch(call, views[number].seen_by(call))
            if call.layer == layers[-1]:
                del views[number]

        named = named_receiver(take, s["model"], [c for c, _ in texts])
        listen_windows(model, ids, layers, named, window_width(model, s["max_length"]))

    def _watch(self, call: LayerCall, view: Any) -> None:
        layer, heads, text = call.layer, call.query.shape[0], view.text
        patterns = PatternSums(text.tokens, heads, text.window, view.of_all_layers)
        means = self.mean_rows.setdefault(layer, MeanRows(len(self.vocabulary), heads))
        local = np.asarray(text.tokens)

        class Both:
            def add(self, weight: torch.Tensor, low: int, start: int, heads: slice) -> None:
                patterns.add(weight, low, start, heads)
                means.add(local, text.window, weight, low, start, heads)

        compared = compare_text(call, view, {}, Both())
        self._sink[layer] = self._sink.get(layer, 0.0) + compared.sink.double().sum(1).cpu().numpy()
        for name, (values, _, n) in patterns.scores().items():
            self._patterns.setdefault((layer, name), []).append((values * n, n))

    def _compare(self, call: LayerCall, view: Any, rule: str) -> None:
        layer, known = call.layer, self.fitted[call.layer]
        compared = compare_text(call, view, known)
        level = torch.as_tensor(self.levels[layer], dtype=torch.float32, device=call.query.device)
        for name in known:
            own = rule == LEADER and name in compared.sink_odds
            kl = compared.measures(name)["kl_with_sink"] if own else compared.kl_at_level(name, level)
            self._kl[layer][name] = self._kl[layer].get(name, 0.0) + kl.double().sum(1).cpu().numpy()

    def _scores(self, layer: int) -> dict[str, Any]:
        """Pattern score or sink_share -> [H]."""
        found = {"sink_share": self._sink[layer] / self.queries}
        for name in PATTERNS:
            if kept := self._patterns.get((layer, name)):
                found[name] = sum(total for total, _ in kept) / sum(n for _, n in kept)
        return found

    def heads(self) -> list[dict[str, Any]]:
        """Every head with its KL by surrogate, and its kind."""
        found = []
        for layer in self.fitted:
            scores = self._scores(layer)
            for head in range(len(self._sink[layer])):
                own = {name: float(values[head]) for name, values in scores.items()}
                kind = kind_of(own)
                kl = {name: float(total[head]) / self.chosen_queries for name, total in self._kl[layer].items()}
                kept = OTHER if kind in {"content", "position", "mixed"} else kind
                found.append({"layer": layer, "head": head, "kl": kl, "kind": kept})
        return found

    def add_rows(self, rows: Rows) -> None:
        """Rows of the KL by head and surrogate, and of the scores that kinds are decided by."""
        for one in self.heads():
            where: dict[str, Any] = {"layer": one["layer"], "head": one["head"], "n": self.chosen_queries}
            for name, value in one["kl"].items():
                if np.isfinite(value):
                    rows.add("training_kl", value, surrogate=name, **where)
                else:
                    rows.add("training_kl", None, missing="infinite", surrogate=name, **where)
        for layer in self.fitted:
            for name, values in self._scores(layer).items():
                for head, value in enumerate(values.tolist()):
                    rows.add(name, value, layer=layer, head=head, surrogate="model", n=self.queries)
