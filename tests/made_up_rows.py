"""Rows of generation and of the count ablation with known truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.core.rows import Rows

FLOOR, CEILING = "model-shuffled", "model-reseeded"
ERRORS = {"near": 0.25, "counts": 0.6, "far": 1.0}
KL = {"near": 0.2, "counts": 1.0, "far": 2.0}


def generation_rows(
    models: Sequence[str] = ("m",),
    strategies: Sequence[str] = ("temperature=1",),
    prompts: int = 8,
    ceiling: float = 0.0,
    one_continuation: bool = False,
    errors: Mapping[str, float] = ERRORS,
    kl: Mapping[str, float] = KL,
) -> pd.DataFrame:
    """Rows of the experiment `generation`.

    Args:
        models, strategies: each model with each strategy.
        prompts: held-out prompts.
        ceiling: error of the model with another seed, where that of another prompt's continuation is 1.
        one_continuation: the model with another seed is the model itself.
        errors: of each surrogate, on the same scale; seq_rep_4 is .4 times as much above the model's.
        kl: of each surrogate, nats.
    """
    rng = np.random.default_rng(0)
    every = {FLOOR: 1.0, **errors, CEILING: ceiling}
    frames = []
    for model in models:
        for strategy in strategies:
            rows = Rows(experiment="generation", model=model, strategy=strategy, split="held_out")
            for index in range(prompts):
                prompt, real = f"p{index:02}", 0.1 + 0.02 * index
                own: dict[str, Any] = {"surrogate": "model", "prompt": prompt, "seed": 0}
                rows.add("in_context_mass", 0.6 + 0.1 * rng.random(), n=20, **own)
                for metric, value in (
                    ("seq_rep_1", real),
                    ("seq_rep_4", real),
                    ("loop_share", 0.1),
                    ("winner_size", 9),
                ):
                    rows.add(metric, value, **own)
                for name, error in every.items():
                    seed = 0 if name == CEILING and one_continuation else 1
                    pair: dict[str, Any] = {"surrogate": name, "prompt": prompt, "seed": seed}
                    pair["condition"] = {"real_seed": 0}
                    for metric, value in made(error, real, rng).items():
                        rows.add(metric, value, **pair)
                for name, nats in kl.items():
                    where: dict[str, Any] = {"surrogate": name, "prompt": prompt, "seed": 0, "n": 20}
                    rows.add("kl", nats * (0.9 + 0.2 * rng.random()), **where)
                    rows.add("total_variation", 0.5, **where)
                    rows.add("top_token", 0.3, **where)
            frames.append(rows.frame())
    return pd.concat(frames, ignore_index=True)


def made(error: float, real: float, rng: np.random.Generator) -> dict[str, float]:
    """Measures of one continuation, whose errors are known but for a tenth."""
    who, when, how_much = (error * (0.9 + 0.2 * rng.random()) for _ in range(3))
    repeats = real + 0.4 * how_much
    return {
        "winner_jaccard": 1.0 - 0.8 * who,
        "winner_precision": 1.0 - 0.5 * who,
        "winner_recall": 1.0 - 0.6 * who,
        "dominance_area": 0.4 * when,
        "seq_rep_1": repeats,
        "seq_rep_4": repeats,
        "loop_share": 0.2 * error,
        "winner_size": 9.0 - 4.0 * error,
    }


ABLATED = {
    '{"ablation": "none"}': (0.5, 3.0),
    '{"ablation": "all", "strength": 0.5}': (0.45, 3.05),
    '{"ablation": "all", "strength": 1.0}': (0.4, 3.2),
    '{"ablation": "first-half", "strength": 1.0}': (0.4, 3.1),
    '{"ablation": "second-half", "strength": 1.0}': (0.45, 3.1),
    '{"repetition_penalty": 1.1}': (0.3, 3.1),
    '{"repetition_penalty": 1.2}': (0.1, 3.4),
}
"""Condition -> seq_rep_4 and loss on prose."""


def ablation_rows(
    figures: Mapping[str, tuple[float, float]] = ABLATED,
    models: Sequence[str] = ("m",),
    spread: float = 0.02,
    prompts: int = 8,
) -> pd.DataFrame:
    """Rows of the experiment `count-ablation`.

    Args:
        figures: condition as JSON -> mean seq_rep_4 and mean loss on prose.
        models: the same for each.
        spread: standard deviation of both, new for each condition and prompt; their means are as given.
        prompts: and as many texts of prose.
    """
    rng = np.random.default_rng(0)
    frames = []
    for model in models:
        rows = Rows(experiment="count-ablation", model=model, strategy="greedy", split="held_out", surrogate="model")
        for condition, means in figures.items():
            for metric, prefix, mean in zip(("seq_rep_4", "loss_prose"), "pt", means, strict=True):
                noise = rng.standard_normal(prompts)
                values = mean + spread * (noise - noise.mean())
                for index, value in enumerate(values):
                    prompt = f"{prefix}{index}"
                    rows.add(metric, float(value), prompt=prompt, seed=0, condition=json.loads(condition))
        frames.append(rows.frame())
    return pd.concat(frames, ignore_index=True)
