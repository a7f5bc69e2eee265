"""What the model loses with heads replaced: one arm, all sets of some families, text by text.

The unreplaced model reads each text once for all sets. Texts go through the model one at a time: at some two hundred
tokens a pass is as fast per token as a batch, and only one text's distributions are in memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.attention.capture import IntArray
from harness.core.rows import Rows
from harness.experiments._shared.continuations import Continuation
from harness.experiments._shared.head_sets import Head, HeadSet, make_sets
from harness.experiments._shared.loop_arms import Arm, read_alone, read_arm, read_heads
from harness.experiments._shared.loop_fits import choosing_texts, read_texts
from harness.experiments._shared.loop_rules import REAL
from harness.runs.units import Work

ROWS = 32
"""Positions whose distributions are worked on at once."""


@dataclass(frozen=True)
class Predicted:
    """What a model says along a text: log_probability [T - 1, V] of the next token, and loss [T - 1] of what came."""

    log_probability: torch.Tensor
    loss: torch.Tensor

    @classmethod
    def along(cls, model: Any, ids: IntArray) -> Predicted:
        """Run the model over a text [T]."""
        tokens = torch.as_tensor(ids, device=model.device)
        with torch.inference_mode():
            logits = model(tokens[None], use_cache=False).logits[0, :-1].float()
            for part in torch.split(logits, ROWS):  # in place: a second array of this size would double the peak
                part -= torch.logsumexp(part, -1, keepdim=True)
            return cls(logits, -logits.gather(1, tokens[1:, None])[:, 0])

    def against(self, base: Predicted) -> dict[str, torch.Tensor]:
        """Per token: nats lost against the model as it is, KL divergence from it, and whether the top token is its."""
        kl, same = [], []
        with torch.inference_mode():
            both = (torch.split(one.log_probability, ROWS) for one in (self, base))
            for own, of_model in zip(*both, strict=True):
                kl.append((of_model.exp() * (of_model - own)).sum(-1))
                same.append(own.argmax(-1) == of_model.argmax(-1))
            return {
                "nats_lost": (self.loss - base.loss).double(),
                "next_token_kl": torch.cat(kl).double(),
                "same_top_token": torch.cat(same).double(),
            }


def read_selected(work: Work) -> dict[bool, list[Head]]:
    """What greedy selection took, without layer 0 and with it; nothing where it did not run."""
    for folder in work.inputs:
        if (folder / "selected.json").exists():
            found = json.loads((folder / "selected.json").read_text(encoding="utf-8"))
            return {side == "in": [(layer, head) for layer, head in heads] for side, heads in found.items()}
    return {}


def measure(work: Work) -> pd.DataFrame:
    """Do one arm on the sets of one order."""
    from harness.models import loading

    s = work.settings
    work.progress(0.0, "loading the model")
    model = loading.model_of(work.local)
    arm = read_arm(model, work.inputs, s["arm"], s["longest"], s["order"])
    alone = read_alone(work.inputs, s["order"])
    sets = make_sets(read_heads(work.inputs), s["order"], s["families"], s, read_selected(work), alone)
    rows = Rows(
        experiment="in-the-loop", model=s["model"], revision=s["revision"], surrogate=s["arm"]
    )  # the seed of a row is that of its text
    _add_layers(rows, sets, s["rules"][0])
    held_out = [one for one in read_texts(work, "held_out") if one[0].seed == 0]  # further seeds are for writing
    texts = [(c, ids, sets) for c, ids in first_of_each(held_out, s["held_out_texts"] or len(held_out))]
    texts += [(c, ids, _without_draws(sets)) for c, ids in first_of_each(choosing_texts(work), s["training_texts"])]
    for number, (c, ids, of_text) in enumerate(texts):
        work.progress(number / len(texts), f"{s['arm']}: {len(of_text)} sets on text {number + 1} of {len(texts)}")
        _read(rows, arm, c, ids, of_text, s["rules"])
    return rows.frame()


def first_of_each(texts: list[tuple[Continuation, IntArray]], count: int) -> list[tuple[Continuation, IntArray]]:
    """So many texts of each strategy, evenly spread."""
    found = []
    for strategy in dict.fromkeys(c.strategy for c, _ in texts):
        own = [one for one in texts if one[0].strategy == strategy]
        places = np.linspace(0, len(own) - 1, min(count, len(own))).astype(int).tolist()
        found += [own[place] for place in dict.fromkeys(places)]
    return found


def _without_draws(sets: list[HeadSet]) -> list[HeadSet]:
    return [one for one in sets if one.condition["set"] != "random"]


def _add_layers(rows: Rows, sets: list[HeadSet], rule: str) -> None:
    for one in sets:
        for layer, count in one.layers().items():
            where = {**one.condition, "first_position": rule}
            rows.add("heads_in_layer", count, layer=layer, split="train", condition=where, n=len(one.heads))


def _read(rows: Rows, arm: Arm, c: Continuation, ids: IntArray, sets: list[HeadSet], rules: list[str]) -> None:
    """Rows of all sets on one text."""
    base = Predicted.along(arm.model, ids)
    shared: dict[str, Any] = {
        "strategy": c.strategy, "split": c.split, "prompt": c.prompt, "group": c.group, "seed": c.seed,
    }  # fmt: skip
    outside = float(np.mean(~np.isin(ids, arm.vocabulary)))
    rows.add("outside_vocabulary", outside, n=len(ids), condition={"order": sets[0].condition["order"]}, **shared)
    written = max(len(c.prompt_tokens), 1) - 1  # the first prediction of a token that the model wrote
    for one in sets:
        for rule in rules:
            if rule == REAL and (one.condition["set"] not in {"share", "alone"} or one.condition["layer_0"] == "in"):
                continue
            with arm.replacing(one.heads, rule):
                found = Predicted.along(arm.model, ids).against(base)
            condition = {**one.condition, "first_position": rule}
            for metric, values in found.items():
                rows.add(metric, float(values.mean()), n=len(values), condition=condition, **shared)
            own = found["nats_lost"][written:]
            missing = None if len(own) else "the model wrote nothing"
            value = float(own.mean()) if len(own) else None
            rows.add("nats_lost_written", value, missing=missing, n=len(own), condition=condition, **shared)
