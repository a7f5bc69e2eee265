"""Experiment `heads`: how far attention over a model's own texts is a context-conditioned Markov chain.

Two passes. The first, over the training texts, fits surrogates (`_shared/head_fits.py`). Over the held-out texts, every
surrogate is scored against the rows as they pass. The first position, the attention sink, is taken out of every row;
its share is reported.
"""

from __future__ import annotations

import pandas as pd

from harness.attention.capture import LayerCall
from harness.attention.packing import listen_windows, window_width
from harness.attention.windows import Windows
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.attention_samples import AttentionSamples
from harness.experiments._shared.head_fits import fit_heads, named_receiver, share
from harness.experiments.heads.scores import Scores
from harness.runs.units import Work


def layers(work: Work) -> pd.DataFrame:
    """Do the heads of one group of layers."""
    s = work.settings
    rows = Rows(experiment="heads", model=s["model"], revision=s["revision"], split="held_out", seed=s["seed"])
    found = fit_heads(work, rows)
    scores, samples = Scores(rows), AttentionSamples()
    seen, count = found.counts > 0, len(found.held_out)
    views: dict[int, Windows] = {}  # of the texts that are going through the model

    def judge(call: LayerCall, number: int) -> None:
        c, tokens = found.held_out[number]
        if call.layer == s["layers"][0]:
            share(work, 0.7, 1.0, number, count, f"scoring held-out text {number + 1} of {count}")
            views[number] = Windows(tokens, found.vocabulary)
        view, surrogates = views[number].seen_by(call), found.surrogates[call.layer]
        scores.add(call, view, c, surrogates, seen)
        samples.add(call, tokens, view.text, c, surrogates)
        if call.layer == s["layers"][-1]:
            del views[number]

    held_out = [tokens for _, tokens in found.held_out]
    named = named_receiver(judge, s["model"], [c for c, _ in found.held_out])
    listen_windows(found.model, held_out, s["layers"], named, window_width(found.model, s["max_length"]))
    scores.explained(derive_seed(s["seed"], "explained"))
    scores.patterns.content(derive_seed(s["seed"], "content"))
    samples.write(work.folder, s["model"])
    return rows.frame()
