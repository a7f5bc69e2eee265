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

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.core.records import Interval
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.data.texts import IntArray, Text
from harness.experiments._shared.claims import Claims, mean, read_rows, values
from harness.experiments._shared.comparison import Comparison
from harness.experiments._shared.continuations import Continuation
from harness.experiments._shared.fidelity_rows import add_finite, fidelity_means
from harness.experiments.theory_gap.streams import Data, teacher_paths, windows
from harness.models.language_model import generate, next_token_distributions
from harness.models.one_layer_config import OneLayerConfig
from harness.models.one_layer_hf import OneLayerForCausalLM
from harness.models.training import IGNORED, Examples, Recipe, train
from harness.runs.units import Work
from harness.stats.explained import explained_interval
from harness.surrogates._fitting.decoding import Decoding
from harness.surrogates._fitting.head_chains import HeadChain
from harness.surrogates._fitting.head_mixture import HeadMixture
from harness.surrogates.base import Ingredients, NextTokenSurrogate
from harness.surrogates.make import make
from harness.surrogates.observations import NextTokenObservations, pair_mass

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
ONE_STEP = ("kl", "total_variation", "top_token")
ROLLOUTS = ("seq_rep_4", "rep_32", "winner_size", "winner_jaccard", "dominance_area")
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


def next_tokens(tokens: np.ndarray[Any, Any], prompt_length: int, inside: bool) -> Examples:
    """What came after each position from the prompt's last on; `inside`: only where it occurs in the context."""
    labels = np.full_like(tokens, IGNORED)
    for place in range(prompt_length - 1, tokens.shape[1] - 1):
        after = tokens[:, place + 1]
        known = (tokens[:, : place + 1] == after[:, None]).any(axis=1)
        labels[:, place] = np.where(known | (not inside), after, IGNORED)
    return Examples(torch.as_tensor(tokens), labels=torch.as_tensor(labels))


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
    fitted = _one_step(rows, model, data, s, own)
    work.progress(0.75, "continuing held-out prompts")
    _rollouts(rows, model, fitted, data, s, own)
    return rows.frame()


def _texts(model: Any, sequences: Any, s: dict[str, Any]) -> list[tuple[Text, Any]]:
    start, stop = s["prompt_length"] - 1, s["prompt_length"] + s["steps"] - 1
    texts = [Text(tokens, start=start, stop=stop) for tokens in sequences]
    vocabulary = np.arange(model.config.vocab_size)
    return [(text, next_token_distributions(model, text.tokens, text, vocabulary)) for text in texts]


def _one_step(rows: Rows, model: Any, data: Data, s: dict[str, Any], seed: int) -> dict[str, NextTokenSurrogate]:
    """Fit every surrogate on training sequences; rows of what it says of the held-out ones, one token ahead."""
    size = s["surrogate_sequences"]
    train_, held_out = _texts(model, data.train[:size], s), _texts(model, data.held_out, s)
    rows.add("in_context_mass", float(np.mean([f.in_context_mass for _, f in held_out])), surrogate="model")
    observations = NextTokenObservations(
        texts=[text for text, _ in train_],
        groups=data.groups[:size],
        wins=[pair_mass(text, found.restricted[None], data.vocab_size) for text, found in train_],
        vocab_size=data.vocab_size,
        targets=[found.restricted for _, found in train_],
        in_context_mass=[found.in_context_mass for _, found in train_],
        outside=[found.outside for _, found in train_],
    )
    fitted: dict[str, NextTokenSurrogate] = {}
    if s["rung"] not in MANY:
        fitted["ccmc-weights"] = weights_chain(model).fit(observations)
    for name in s["surrogates"]:
        fitted[name] = make(name, "next-token", Ingredients(seed)).fit(observations)
    kl = {}
    for name, surrogate in fitted.items():
        each = [fidelity_means(found.restricted[None], surrogate.predict(text)) for text, found in held_out]
        means = {metric: float(np.mean([found[metric] for found in each])) for metric in ONE_STEP}
        for metric, value in means.items():
            add_finite(rows, metric, value, surrogate=name, n=len(each))
        kl[name] = means["kl"]
    for name, divergence in kl.items():
        share = explained_interval([divergence], [kl["counts"]], seed)
        if share.value is None:
            rows.add("explained", None, missing=share.missing, surrogate=name, n=len(held_out))
        else:
            add_finite(rows, "explained", share.value, surrogate=name, n=len(held_out))
    if s["rung"] in MANY:
        reason = "several heads or layers, or positions: no single chain stands in the weights"
        rows.add("kl", None, missing=reason, surrogate="ccmc-weights")
    return fitted


def _rollouts(
    rows: Rows, model: Any, fitted: dict[str, NextTokenSurrogate], data: Data, s: dict[str, Any], seed: int
) -> None:
    """Rows of repetition and winner agreement: means over the held-out prompts."""
    prompts = [tokens[: s["prompt_length"]] for tokens in data.held_out]
    nothing = SimpleNamespace(pad_token_id=None, eos_token_id=None)

    def continued(number: int) -> list[Continuation]:
        made = generate(
            model, nothing, [p.tolist() for p in prompts], temperature=1.0, max_new_tokens=s["steps"],
            seed=derive_seed(seed, "continued", number), batch_size=len(prompts),
        )  # fmt: skip
        return [
            Continuation(str(i), "held_out", "temperature=1", number, prompt, tokens)
            for i, (prompt, tokens) in enumerate(zip(prompts, made, strict=True))
        ]

    single = Rows(experiment="theory-gap")
    again, real = {c.prompt: c for c in continued(1)}, continued(0)
    comparison = Comparison(single, real, again, derive_seed(seed, "floor"))
    comparison.frame_rows()
    rows.add("new_tokens", new_tokens(prompts, [c.continuation for c in real]), surrogate="model", n=len(prompts))
    for name, surrogate in fitted.items():
        steps = [s["steps"]] * len(prompts)
        made = surrogate.rollout(prompts, steps, derive_seed(seed, name), Decoding(1.0), keys=prompts)
        comparison.add(name, 0, {str(i): tokens for i, tokens in enumerate(made)})
        rows.add("new_tokens", new_tokens(prompts, made), surrogate=name, n=len(prompts))
    frame = single.frame()
    for (metric, who), part in frame[frame["metric"].isin(ROLLOUTS)].groupby(["metric", "surrogate"], sort=False):
        found = part["value"].dropna().astype(float)
        if len(found):
            rows.add(str(metric), float(found.mean()), surrogate=who, n=len(found))
        else:
            rows.add(str(metric), None, missing=str(part["missing"].iloc[0]), surrogate=who)


def new_tokens(prompts: Sequence[IntArray], continuations: Sequence[IntArray]) -> float:
    """Mean share of the tokens of continuations that neither the prompt nor the continuation so far holds."""
    each = []
    for prompt, continuation in zip(prompts, continuations, strict=True):
        new = np.setdiff1d(continuation, prompt)  # every one of them is new once
        each.append(len(new) / len(continuation))
    return float(np.mean(each))


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


LABELS = {
    "stopping_loss": "loss on sequences kept back for early stopping, nats",
    "in_context_mass": "probability that the model gives to its context",
    "kl": "KL from model to surrogate, nats",
    "total_variation": "total variation distance",
    "top_token": "share of contexts with the same likeliest token",
    "explained": "share of KL(counts) explained",
    "seq_rep_4": "share of repeated 4-grams",
    "rep_32": "share of tokens among the 32 before",
    "winner_size": "size of the winner set",
    "winner_jaccard": "overlap of winners with the model's",
    "dominance_area": "distance of dominance curves",
    "new_tokens": "share of tokens that are new to prompt and continuation",
}
