"""The unit of base transitions: read off the whole model once, for all strategies."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ccmc import BaseTransition
from harness.core.rows import Rows
from harness.experiments._shared.continuations import read_continuations
from harness.models.base_reading import read_base
from harness.runs.units import Work

FILE = "base.safetensors"


def read_off(work: Work) -> pd.DataFrame:
    """Read P0 off the model after one neutral context, and keep it in the unit's folder."""
    from harness.models import loading

    s = work.settings
    work.progress(0.0, "loading the model")
    model = loading.model_of(work.local)
    queries = None
    if work.inputs:
        texts = [c.tokens for folder in work.inputs for c in read_continuations(folder)]
        queries = np.unique(np.concatenate(texts))
    base = read_base(model, s["ids"], queries, s["top"], work.progress)
    base.save(work.folder / FILE)
    rows = Rows(experiment="repetition", model=s["model"], revision=s["revision"], surrogate="bigram")
    kept = float((1 - base.rest).mean())
    condition = {"neutral": s["neutral"]}
    rows.add("kept_mass", kept, split="train", n=len(base.tokens), condition=condition)
    return rows.frame()


def load(folder: object) -> BaseTransition:
    """What a unit has kept."""
    return BaseTransition.load(f"{folder}/{FILE}")
