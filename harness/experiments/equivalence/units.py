"""Experiment `equivalence`: a one-layer model is the chain read off its weights, random and trained, for every d.

For d >= K the next-token probabilities through the tied classifier equal those of the chain up to round-off, in
float64 and float32. For d < K the classifier cannot be tied: what comes out has negative entries, which are clipped,
and the lost mass is measured. The chain itself stays the right one for the attention.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ccmc import CCMC, attention_from_chain, chain_from_attention
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.claims import Claims, mean, read_rows, values
from harness.experiments._shared.sampling import FloatArray, IntArray, count_tokens, sample_rows
from harness.models.one_layer import OneLayerAttention, train
from harness.models.one_layer_hf import from_weights
from harness.models.training import store
from harness.runs.units import Work

DTYPES = {"float64": torch.float64, "float32": torch.float32}
# Errors are counted in units of eps x cond(E), what solving with E may cost in the worst case, per token of the prompt.
ROUND_OFF = 8.0


def repetition(work: Work) -> pd.DataFrame:
    """Compare a random and a trained model of one dimension with the chain read off their weights."""
    s = work.settings
    K, d, L = s["vocab_size"], s["dimension"], s["prompt_length"]
    rng = np.random.default_rng(derive_seed(s["seed"], "equivalence", d, s["repetition"]))
    rows = Rows(experiment="equivalence", model="one-layer", split="held_out", seed=s["repetition"], n=s["prompts"])
    E = rng.normal(0.0, d**-0.5, (K, d))
    prompts = rng.integers(0, K, (s["prompts"], L))
    weights = {"random": rng.normal(0.0, s["logit_sd"], (d, d))}
    work.progress(0.2, "training")
    weights["trained"] = _trained(E, s, rng, work.folder)
    for origin, W in weights.items():
        for name, dtype in DTYPES.items():
            condition = {"K": K, "d": d, "weights": origin, "dtype": name}
            _compare(rows, E, W, prompts, dtype, condition)
        if d >= K:
            _round_trip(rows, E, W, prompts, {"K": K, "d": d, "weights": origin, "dtype": "float64"})
    return rows.frame()


def _trained(E: FloatArray, s: dict[str, int], rng: np.random.Generator, folder: Path) -> FloatArray:
    """Scores [d, d] trained on a teacher's tokens; checkpoint and loss curve go to the folder."""
    K = len(E)
    teacher = CCMC(rng.normal(0.0, s["logit_sd"], (K, K)))
    prompts = rng.integers(0, K, (s["observations"], s["prompt_length"]))
    targets = sample_rows(teacher.next_token(count_tokens(prompts, K), prompts[:, -1]), rng)
    model = OneLayerAttention(torch.as_tensor(E))
    losses = train(model, prompts, targets, steps=200).losses
    curve = pd.DataFrame({"step": range(len(losses)), "train_loss": losses})
    store(from_weights(model.E, model.W), curve, folder)
    found: FloatArray = model.W.detach().numpy()
    return found


def _compare(
    rows: Rows, E: FloatArray, W: FloatArray, prompts: IntArray, dtype: torch.dtype, condition: dict[str, object]
) -> None:
    K, d = E.shape
    model = from_weights(torch.as_tensor(E), torch.as_tensor(W), dtype)
    with torch.inference_mode():
        # the same steps in the model's own precision, and only then float64
        raw = model.raw_output(torch.as_tensor(prompts), keep=1)[:, 0].double().numpy()
        through_model = torch.softmax(model(torch.as_tensor(prompts), logits_to_keep=1).logits[:, 0], -1)
    counts = count_tokens(prompts, K)
    expected = chain_from_attention(E, W).next_token(counts, prompts[:, -1])
    inside = counts > 0
    clipped = np.clip(raw, 0.0, None) * inside
    clipped /= clipped.sum(axis=1, keepdims=True)
    rows.add("lost_mass", float(0.5 * np.abs(raw - clipped).sum(axis=1).mean()), condition=condition)
    rows.add("negative_share_outside", float((raw[~inside] < 0).mean()), condition=condition)
    rows.add("total_variation", float(0.5 * np.abs(clipped - expected).sum(axis=1).mean()), condition=condition)
    if d < K:
        return
    eps = float(torch.finfo(dtype).eps) * float(np.linalg.cond(E))
    for metric, found in (
        ("equivalence_error", raw),
        ("equivalence_error_masked", through_model.double().numpy()),
    ):
        rows.add(metric, float(np.abs(found - expected).max()), condition=condition)
    rows.add("equivalence_error_eps", float(np.abs(raw - expected).max()) / eps, condition=condition)


def _round_trip(rows: Rows, E: FloatArray, W: FloatArray, prompts: IntArray, condition: dict[str, object]) -> None:
    """W -> P -> W in S_E: the chain is the same, and going round again changes nothing."""
    chain = chain_from_attention(E, W)
    projected = attention_from_chain(chain, E)
    again = chain_from_attention(E, projected)
    error = float(np.abs(again.transition - chain.transition).max())
    rows.add("round_trip_error", error, condition=condition)
    rows.add("outside_share", float(np.linalg.norm(W - projected) / np.linalg.norm(W)), condition=condition)


def pool(work: Work) -> pd.DataFrame:
    """Verdicts over all repetitions."""
    frame, claims = read_rows(work), Claims("equivalence")
    K, L = work.settings["vocab_size"], work.settings["prompt_length"]
    for d in work.settings["dimensions"]:
        for origin in ("random", "trained"):
            at = {"at_d": d, "at_weights": origin}
            factors = {"K": K, "d": d, "weights": origin}
            if d >= K:
                for dtype in DTYPES:
                    found = values(frame, metric="equivalence_error_eps", at_dtype=dtype, **at)
                    claims.bound(
                        "equivalence_error_eps",
                        "model = chain off its weights, largest error in units of eps cond(E)",
                        float(found.max()),
                        ROUND_OFF * L,
                        len(found),
                        **factors,
                        dtype=dtype,
                    )
                    found = values(frame, metric="equivalence_error", at_dtype=dtype, **at)
                    claims.compare(
                        "equivalence_error", "largest difference of a probability", mean(found), None, **factors,
                        dtype=dtype,
                    )  # fmt: skip
                found = values(frame, metric="round_trip_error", **at)
                claims.bound(
                    "round_trip_error", "W -> P -> W in S_E -> P gives P again", float(found.max()), 1e-9, len(found),
                    **factors,
                )  # fmt: skip
                shares = values(frame, metric="negative_share_outside", at_dtype="float64", **at)
                claims.compare(
                    "negative_share_outside",
                    "share of out-of-context probabilities that round-off makes negative",
                    mean(shares),
                    0.5,
                    **factors,
                )
            else:
                lost = mean(values(frame, metric="lost_mass", at_dtype="float64", **at))
                claims.compare(
                    "lost_mass", "mass lost where d < K", lost, 0.28 if origin == "random" else None, **factors
                )
                off = mean(values(frame, metric="total_variation", at_dtype="float64", **at))
                claims.compare("total_variation", "clipped output against the chain where d < K", off, None, **factors)
    return claims.frame()
