"""The unit of the model's own curves: how likely repeated sentences are to it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from harness.core.rows import MODEL, Rows
from harness.data.texts import FloatArray
from harness.experiments.self_reinforcement.curves import add_curve, add_missing
from harness.experiments.self_reinforcement.sentences import Repeated, repeated_texts
from harness.runs.units import Work


def rows_of(work: Work, **shared: Any) -> Rows:
    """Rows of a unit, none yet."""
    s = work.settings
    return Rows(experiment="self-reinforcement", model=s["model"], revision=s["revision"], seed=s["seed"], **shared)


def log_along(model: Any, text: Repeated) -> FloatArray:
    """[K + 1, L] log-probability of each token of a text's repetitions, by a model as it runs."""
    tokens = torch.as_tensor(text.tokens, device=model.device)
    with torch.inference_mode():
        logits = model(tokens[None], use_cache=False).logits[0, text.first - 1 : -1].float()
        came = logits.gather(1, tokens[text.first :, None])[:, 0]
        found = came.double() - torch.logsumexp(logits, -1).double()
    return text.table(found.cpu().numpy())


def measure(work: Work) -> pd.DataFrame:
    """Do the model itself."""
    from harness.models import loading

    work.progress(0.0, "loading the model")
    model, rows, texts = loading.model_of(work.local), rows_of(work, surrogate=MODEL), repeated_texts(work)
    condition = {"starts_with": len(work.local["start"])}
    rows.add("margin_probability_slope", work.settings["margin"], split="held_out", n=1, condition=condition)
    for number, text in enumerate(texts):
        work.progress(number / len(texts), f"repeated sentences, text {number + 1} of {len(texts)}")
        if text.missing is None:
            add_curve(rows, text, log_along(model, text))
        else:
            add_missing(rows, text)
    return rows.frame()
