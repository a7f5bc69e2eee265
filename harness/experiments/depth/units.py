"""Experiment `depth`: models that differ in depth and positions alone, against chains.

Attention models with a residual stream and without MLPs, as the theory has it but for these: 1, 2, 4 layers, with and
without positions. Every sequence has a chain of its own (see `data`), training sees each sequence once, so that nothing
can be learned by heart, and held-out loss is compared with that of the best predictor. Surrogates are fitted and judged
as everywhere. A copy of each model, rounded as weights of language models are, shows what quantisation alone does.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.core.records import Interval
from harness.core.rows import MODEL, Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared import small_models
from harness.experiments._shared.claims import Claims, mean, read_rows, values
from harness.experiments._shared.small_models import Data, next_tokens, one_step, rollouts
from harness.experiments.depth.data import best_loss, mean_chain, sequences
from harness.experiments.depth.names import FLOAT
from harness.models.one_layer_config import OneLayerConfig
from harness.models.one_layer_hf import OneLayerForCausalLM
from harness.models.training import Recipe, mean_loss, train
from harness.runs.units import Work

BLOCK = 32
"""Numbers that share a scale and an offset, as in the formats of llama.cpp."""
LABELS = {
    **small_models.LABELS,
    "held_out_loss": "loss on held-out sequences, nats",
    "loss_above_best": "held-out loss above that of the best predictor, nats",
    "loss_off_training": "held-out loss less training loss, nats",
    "training_tokens": "tokens learned from, each seen once",
    "stopped_early": "share of trainings that held-out loss ended",
}


def untrained(s: dict[str, Any], seed: int) -> OneLayerForCausalLM:
    """A model of the family; its embeddings are orthonormal and stay so."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: OneLayerForCausalLM = OneLayerForCausalLM(
            OneLayerConfig(
                vocab_size=s["vocab_size"], dimension=s["dimension"], max_positions=s["prompt_length"] + s["steps"],
                classifier="free", init_scale=1.0, values=True, norm=True, residual=True, mlp=s["mlp"],
                heads=s["heads"], layers=s["layers"], positions=s["positions"],
            )
        )  # fmt: skip
    normal = np.random.default_rng(seed).normal(size=(s["dimension"], s["vocab_size"]))
    made.E.data = torch.as_tensor(np.linalg.qr(normal)[0].T, dtype=made.E.dtype).contiguous()
    return made.eval()  # type: ignore[no-any-return]


def rounded(model: Any, bits: int) -> Any:
    """A copy whose matrices are rounded to so many bits, each block of 32 numbers with a scale and an offset."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for values_ in made.parameters():
            if values_.ndim < 2:
                continue  # vectors stay as they are
            flat = values_.reshape(-1)
            missing = -len(flat) % BLOCK
            blocks = torch.nn.functional.pad(flat, (0, missing), value=float(flat[-1])).reshape(-1, BLOCK)
            low = blocks.min(1, keepdim=True).values
            step = ((blocks.max(1, keepdim=True).values - low) / (2**bits - 1)).clamp(min=1e-12)
            near = low + torch.round((blocks - low) / step) * step
            values_.copy_(near.reshape(-1)[: len(flat)].reshape(values_.shape))
    return made


def model(work: Work) -> pd.DataFrame:
    """Train one model and measure it, and its rounded copy, against every surrogate."""
    s = work.settings
    seed = derive_seed(s["seed"], "depth", s["repetition"])  # the same data for the whole family
    data = sequences(s, seed)
    own = derive_seed(seed, s["layers"], s["positions"])
    made = untrained(s, own % 2**31)
    outcome = train(
        made,
        next_tokens(data.train, s["prompt_length"], inside=False),
        Recipe(
            steps=s["training_steps"],
            batch_size=s["batch_size"],
            learning_rate=s["learning_rate"],
            evaluate_every=max(1, s["training_steps"] // 20),
            patience=6,
        ),
        seed=own,
        held_out=next_tokens(data.stopping, s["prompt_length"], inside=False),
        folder=work.folder,
        progress=lambda share, what: work.progress(0.7 * share, what),
    )
    copies = {FLOAT: made} | ({f"{s['bits']} bits": rounded(made, s["bits"])} if s["bits"] else {})
    frames = []
    for place, (name, one) in enumerate(copies.items()):
        rows = Rows(
            experiment="depth",
            model="one-layer",
            split="held_out",
            seed=s["repetition"],
            condition={"layers": s["layers"], "positions": s["positions"], "weights": name},
        )
        work.progress(0.7 + 0.3 * place / len(copies), f"scoring held-out sequences, {name}")
        seen = len(outcome.curve) * s["batch_size"]
        rows.add("training_tokens", float(seen * s["steps"]), surrogate=MODEL, n=seen)
        rows.add("stopped_early", float(outcome.stopped_early), surrogate=MODEL)
        _losses(rows, one, data, s, seed)
        fitted = one_step(rows, one, data, s, own)
        rollouts(rows, one, fitted, data, s, own)
        frames.append(rows.frame())
    return pd.concat(frames, ignore_index=True)


def _losses(rows: Rows, one: Any, data: Data, s: dict[str, Any], seed: int) -> None:
    """Rows of the loss on held-out sequences, above the best there is, and off that on training sequences."""
    count, start = len(data.held_out), s["prompt_length"]
    held_out = mean_loss(one, next_tokens(data.held_out, start, inside=False))
    training = mean_loss(one, next_tokens(data.train[:count], start, inside=False))
    best = best_loss(data.held_out, mean_chain(s, seed), s["concentration"], start)
    # training sequences are others: what they are harder or easier to predict is no memory of them
    easier = best_loss(data.train[:count], mean_chain(s, seed), s["concentration"], start) - best
    rows.add("held_out_loss", held_out, surrogate=MODEL, n=count)
    rows.add("loss_above_best", held_out - best, surrogate=MODEL, n=count)
    rows.add("loss_off_training", held_out - (training - easier), surrogate=MODEL, n=count)


def pool(work: Work) -> pd.DataFrame:
    """Every measurement over the repetitions, and how it changes with depth and by rounding."""
    s, frame, claims = work.settings, read_rows(work), Claims("depth")
    cells: dict[tuple[int, str, str], pd.DataFrame] = {}
    for key, of in frame.groupby(["at_positions", "at_layers", "at_weights"], sort=False):
        positions, layers, weights = map(str, key)
        place: dict[str, Any] = {"layers": int(layers), "positions": positions, "weights": weights}
        cells[int(layers), positions, weights] = of
        for (metric, surrogate), part in of.groupby(["metric", "surrogate"], sort=False):
            found = values(part)
            reason = None if len(found) else Interval(None, None, None, 0, str(part["missing"].iloc[0]))
            claims.compare(str(metric), LABELS[str(metric)], reason or mean(found), None, str(surrogate), **place)
    least = min(s["layers"])
    for (depth, positions, weights), of in cells.items():
        place = {"layers": depth, "positions": positions, "weights": weights}
        for name in of["surrogate"].dropna().unique():
            if weights == FLOAT and depth > least:
                about = "explained share less that of the least depth"
                _change(claims, "depth_change", about, of, cells[least, positions, weights], name, place)
            elif weights != FLOAT:
                about = "explained share of the rounded copy less that of the model"
                _change(claims, "rounded_change", about, of, cells[depth, positions, FLOAT], name, place)
    return claims.frame()


def _change(
    claims: Claims,
    metric: str,
    about: str,
    of: pd.DataFrame,
    other: pd.DataFrame,
    name: str,
    place: dict[str, Any],
) -> None:
    """A paired difference of explained shares over the repetitions that have both."""
    both = [part[(part["metric"] == "explained") & (part["surrogate"] == name)] for part in (of, other)]
    first, second = (part.set_index("seed")["value"].astype(float) for part in both)
    gap = np.asarray((first - second).dropna(), dtype=np.float64)
    if len(gap):
        claims.compare(metric, about, mean(gap), None, name, **place)
