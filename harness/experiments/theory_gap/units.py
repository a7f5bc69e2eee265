"""Experiment `theory-gap`: where the theory stops, one step further from its assumptions at a time.

The same sequences train every rung of a ladder of models, from the paper's own to a small transformer:

    tied             the paper's model: scores e_l^T W e_L, values e_l, C = pinv(E)^T
    free-classifier  + a classifier of its own, over all tokens
    values           + value and output matrices
    layer-norm       + LayerNorm before attention and before the classifier
    residual         + a residual stream
    mlp              + an MLP
    two-heads, four-heads, two-layers
    positions        + rotary positions

Embeddings are orthonormal and fixed on every rung. Each rung is measured as a language model is: surrogates are fitted
to its next-token distributions, restricted to the context, on training sequences and judged on held-out ones; then
model and surrogates continue held-out prompts. Ceiling: the model with another seed. Floor: its continuations of other
prompts. A tied model cannot leave its context: it is trained on the tokens that stay inside. Surrogates cannot either,
but for the open ones, `bigram` and `ccmc-open`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.core.records import Interval
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.claims import Claims, mean, read_rows, values
from harness.experiments._shared.small_models import LABELS, next_tokens, one_step, rollouts
from harness.experiments.theory_gap.streams import teacher_paths, windows
from harness.models.one_layer_config import OneLayerConfig
from harness.models.one_layer_hf import OneLayerForCausalLM
from harness.models.training import Recipe, train
from harness.runs.units import Work
from harness.surrogates._fitting.head_chains import HeadChain
from harness.surrogates._fitting.head_mixture import HeadMixture

RUNGS: dict[str, dict[str, Any]] = {
    "tied": {},
    "free-classifier": {"classifier": "free", "init_scale": 1.0},
    "values": {"values": True},
    "layer-norm": {"norm": True},
    "residual": {"residual": True},
    "mlp": {"mlp": 128},
    "two-heads": {"heads": 2},
    "four-heads": {"heads": 4},
    "two-layers": {"layers": 2},
    "positions": {"positions": "rotary"},
}
MANY = ("two-heads", "four-heads", "two-layers", "positions")  # their weights hold no single chain
EXACT = 1e-10


def rung_model(rung: str, K: int, dimension: int, length: int, seed: int) -> OneLayerForCausalLM:
    """An untrained model: every setting of the ladder up to the rung, embeddings orthonormal."""
    names = list(RUNGS)
    settings: dict[str, Any] = {}
    for name in names[: names.index(rung) + 1]:
        settings |= RUNGS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = OneLayerConfig(vocab_size=K, dimension=dimension, max_positions=length, **settings)
        model: OneLayerForCausalLM = OneLayerForCausalLM(config)
    if model.config.classifier == "tied":  # equal to its chain up to round-off, and that shall be seen
        model.double()
    rng = np.random.default_rng(seed)
    model.E.data = torch.as_tensor(np.linalg.qr(rng.normal(size=(dimension, K)))[0].T, dtype=model.E.dtype).contiguous()
    return model.eval()  # type: ignore[no-any-return]


def weights_chain(model: OneLayerForCausalLM) -> HeadMixture:
    """The chain of a model's attention, of one layer with one head and no positions; exact for a tied model."""
    layer: Any = model.layers[0]
    with torch.inference_mode():
        x = layer.norm(model.E) if model.config.norm else model.E  # [K, d]
        scale = model.config.dimension**-0.5 if model.config.norm else 1.0
        queried = scale * x @ layer.W[0].T  # [K, d]
    return HeadMixture([HeadChain(0, 0, queried.double().numpy(), x.double().numpy(), None)], with_counts=False)


def rung(work: Work) -> pd.DataFrame:
    """Train one rung on one kind of data and measure it against every surrogate."""
    s = work.settings
    seed = derive_seed(s["seed"], "theory-gap", s["data"], s["repetition"])  # the same data on every rung
    data = teacher_paths(s, seed) if s["data"] == "ccmc" else windows(work.inputs[0], s, seed)
    own = derive_seed(seed, s["rung"])
    model = rung_model(s["rung"], data.vocab_size, s["dimension"], s["prompt_length"] + s["steps"], own % 2**31)
    tied = model.config.classifier == "tied"
    recipe = Recipe(
        steps=s["training_steps"],
        batch_size=s["batch_size"],
        learning_rate=s["learning_rate"],
        evaluate_every=max(1, s["training_steps"] // 10),
        patience=4,
    )
    outcome = train(
        model,
        next_tokens(data.train, s["prompt_length"], tied),
        recipe,
        seed=own,
        held_out=next_tokens(data.stopping, s["prompt_length"], tied),
        folder=work.folder,
        progress=lambda share, what: work.progress(0.5 * share, what),
    )
    rows = Rows(
        experiment="theory-gap",
        model="one-layer",
        split="held_out",
        seed=s["repetition"],
        condition={"data": s["data"], "rung": s["rung"]},
    )
    rows.add("stopping_loss", outcome.held_out_loss, surrogate="model", n=len(data.stopping))
    work.progress(0.55, "scoring held-out sequences")
    chains = {} if s["rung"] in MANY else {"ccmc-weights": weights_chain(model)}
    fitted = one_step(rows, model, data, s, own, chains)
    if not chains:
        reason = "several heads or layers, or positions: no single chain stands in the weights"
        rows.add("kl", None, missing=reason, surrogate="ccmc-weights")
    work.progress(0.75, "continuing held-out prompts")
    rollouts(rows, model, fitted, data, s, own)
    return rows.frame()


def pool(work: Work) -> pd.DataFrame:
    """Every measurement over the repetitions; verdicts on what a chain would have to do to be the model."""
    frame, claims = read_rows(work), Claims("theory-gap")
    for data in work.settings["data"]:
        for name in work.settings["rungs"]:
            of = frame[(frame["at_data"] == data) & (frame["at_rung"] == name)]
            place = {"data": data, "rung": name}
            for (metric, surrogate), part in of.groupby(["metric", "surrogate"], sort=False):
                found = values(part)
                reason = None if len(found) else Interval(None, None, None, 0, str(part["missing"].iloc[0]))
                claims.compare(str(metric), LABELS[str(metric)], reason or mean(found), None, str(surrogate), **place)
            _verdicts(claims, of, place)
    return claims.frame()


def _verdicts(claims: Claims, of: pd.DataFrame, place: dict[str, Any]) -> None:
    weights = values(of, metric="kl", surrogate="ccmc-weights")
    where = "tied" if place["rung"] == "tied" else "beyond tied"
    if len(weights):
        claims.bound(
            "kl_weights", f"{where}: the chain off the weights is the model, largest KL on held-out sequences",
            float(weights.max()), EXACT, len(weights), **place,
        )  # fmt: skip
    for metric, frame_of, label in (
        ("winner_jaccard", "model-reseeded", "overlap of winners, ccmc-fit less the ceiling"),
        ("seq_rep_4", "model", "repeated 4-grams, ccmc-fit less the model"),
        ("rep_32", "model", "tokens among the 32 before, ccmc-fit less the model"),
    ):
        fit, other = (values(of, metric=metric, surrogate=name) for name in ("ccmc-fit", frame_of))
        if len(fit) and len(fit) == len(other):
            claims.compare(f"{metric}_gap", f"{where}: {label}", mean(fit - other), 0.0, **place)
