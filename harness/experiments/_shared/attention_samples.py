"""A sample of attention on one text of each strategy, real and predicted, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.attention.capture import IntArray, LayerCall, visible_scores
from harness.data.texts import Text
from harness.experiments._shared.continuations import Continuation
from harness.runs.writing import ATTENTION, write_parquet
from harness.surrogates.base import HeadSurrogate

SAMPLE = 48  # tokens of the text


class AttentionSamples:
    """Attention and predictions over the beginning of the first text of each strategy, per token."""

    def __init__(self) -> None:
        self._chosen: dict[str, Continuation] = {}
        self._kept: list[dict[str, Any]] = []

    def add(
        self, call: LayerCall, tokens: IntArray, text: Text, c: Continuation, surrogates: Mapping[str, HeadSurrogate]
    ) -> None:
        """Keep one layer of the text that is to be looked at; any other text is passed over.

        Args:
            call: of the layer, over the whole text.
            tokens: [T] the text in the model's ids.
            text: the same in local ids.
            c: which text it is.
            surrogates: of the layer, by name; what predicts texts is kept.
        """
        if self._chosen.setdefault(c.strategy, c) is not c:
            return
        short = replace(call, query=call.query[:, :SAMPLE], key=call.key[:, :SAMPLE], hidden=None)
        view = Text(text.tokens[:SAMPLE], start=1, first=1, window=text.window)
        rows = torch.softmax(visible_scores(short)[:, 1:, 1:], dim=-1).cpu().numpy()
        truth = view.per_token(rows)  # [H, n, U]
        shared = {"strategy": c.strategy, "prompt": c.prompt, "tokens": tokens[:SAMPLE].tolist()}
        predicting = {name: s for name, s in surrogates.items() if s.predicts}
        found = {"model": truth} | {name: surrogate.predict(view) for name, surrogate in predicting.items()}
        for source, values in found.items():
            for head, of_head in enumerate(np.broadcast_to(values, truth.shape)):
                kept = np.rint(of_head * 255).astype(np.uint8).tobytes()
                self._kept.append(
                    {**shared, "layer": call.layer, "head": head, "source": source, "window": view.window, "mass": kept}
                )

    def write(self, folder: Path, model: str) -> None:
        """Leave what was kept in the folder of a unit; model: as rows name it."""
        if self._kept:
            table = pd.DataFrame(self._kept).assign(model=model)
            write_parquet(table.astype({"window": "Int64"}), folder / ATTENTION)
