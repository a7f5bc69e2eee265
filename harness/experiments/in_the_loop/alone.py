"""Heads replaced one at a time: how much the next token changes, on texts to choose on and on held-out ones.

The order is by KL divergence of the next token, which is never below zero: nats lost on the token that came are its
mean over texts of the model, but so noisy in single heads that an order by them would pick heads by luck.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from harness.attention.resume import Prefixes
from harness.core.rows import Rows
from harness.experiments._shared.head_sets import Head
from harness.experiments._shared.loop_arms import ALONE, read_arm
from harness.experiments._shared.loop_fits import choosing_texts, read_texts
from harness.experiments.in_the_loop.losses import Predicted, first_of_each
from harness.runs.units import Work


def measure(work: Work) -> pd.DataFrame:
    """Do all heads of some layers, one at a time; leaves `alone.json`."""
    from harness.models import loading

    s = work.settings
    work.progress(0.0, "loading the model")
    model = loading.model_of(work.local)
    arm = read_arm(model, work.inputs, s["order"], s["longest"])
    prefixes = Prefixes(model)
    heads = [(layer, head) for layer in s["layers"] for head in range(len(arm.levels[layer]))]
    texts = [
        *first_of_each(choosing_texts(work), s["alone_texts"]),
        *first_of_each([one for one in read_texts(work, "held_out") if one[0].seed == 0], s["alone_texts"]),
    ]
    rows = Rows(
        experiment="in-the-loop", model=s["model"], revision=s["revision"], surrogate=s["order"],
        condition={"order": s["order"], "first_position": s["first_position"]},
    )  # fmt: skip
    chosen_by: dict[Head, dict[str, list[float]]] = {}
    for number, (c, ids) in enumerate(texts):
        with prefixes.keeping():
            base = Predicted.along(model, ids)
        for done, (layer, head) in enumerate(heads):
            share = (number + done / len(heads)) / len(texts)
            work.progress(share, f"head {head} of layer {layer} alone, text {number + 1} of {len(texts)}")
            with arm.replacing([(layer, head)], s["first_position"]), prefixes.below(layer):
                found = Predicted.along(model, ids).against(base)
            for metric, values in (("nats_lost_alone", found["nats_lost"]), ("kl_alone", found["next_token_kl"])):
                rows.add(
                    metric, float(values.mean()), n=len(values), layer=layer, head=head, strategy=c.strategy,
                    split=c.split, prompt=c.prompt, group=c.group, seed=c.seed,
                )  # fmt: skip
            if c.split == "train":
                kl = float(found["next_token_kl"].mean())
                chosen_by.setdefault((layer, head), {}).setdefault(c.strategy, []).append(kl)
    kept = [
        {"layer": layer, "head": head, "kl": float(np.mean([np.mean(values) for values in of_head.values()]))}
        for (layer, head), of_head in chosen_by.items()
    ]
    text = json.dumps({"order": s["order"], "heads": kept}, indent=1) + "\n"
    (work.folder / ALONE).write_text(text, encoding="utf-8")
    return rows.frame()
